"""Configuration files as text: which YAML is read, what is refused, how layers merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightasr.configfile import merge, nested, read_yaml
from lightasr.errors import LightasrError


def parsed(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("3.0E+2", 300.0),
        (".5", 0.5),
        ("12", 12),
        ("010", 10),
        ("-3", -3),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30:45", "12:30:45"),
        ("2024-01-31", "2024-01-31"),
        ("1_000", "1_000"),
        ("'1e-3'", "1e-3"),
        ("~", None),
        ("", None),
        ("[a, 1]", ["a", 1]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    found = parsed(tmp_path, f"key: {text}\n")["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_words_whatever_they_look_like(tmp_path: Path) -> None:
    assert parsed(tmp_path, "no: 1\n5: 2\nnull: 3\n") == {"no": 1, "5": 2, "null": 3}


def test_an_anchor_is_reused_and_overridden(tmp_path: Path) -> None:
    tree = parsed(tmp_path, "a: &a {dim: 1, unit: gru}\nb: {<<: *a, dim: 2}\n")
    assert tree == {"a": {"dim": 1, "unit": "gru"}, "b": {"dim": 2, "unit": "gru"}}


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    assert parsed(tmp_path, "# nothing yet\n") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "file.yaml:3: 'a' is given twice"),
        ("rows:\n  x: {lr: 1, lr: 2}\n", "file.yaml:2: 'lr' is given twice"),
        ("a: 1\n'a': 3\n", "file.yaml:2: 'a' is given twice"),
        ("? [a]\n: 1\n", "file.yaml:1: a key is a word"),
        ("a: {b: 1\n", "file.yaml:2: not valid YAML: did not find expected"),
        ("a: *b\n", "file.yaml:1: not valid YAML: found undefined alias"),
        ("a: !!binary aGk=\n", "file.yaml:1: not valid YAML: could not determine a constructor"),
        ("a: !!python/object:os.system {}\n", "file.yaml:1: not valid YAML: could not determine"),
        ("- a\n- b\n", "file.yaml: expected `key: value` lines, found a list"),
    ],
)
def test_what_is_refused_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LightasrError) as error:
        parsed(tmp_path, text)
    assert message in str(error.value)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("title: Größe\n".encode("latin-1"))
    with pytest.raises(LightasrError, match=r"latin\.yaml: not UTF-8 text"):
        read_yaml(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"name": "ds2", "unit": "gru"}, {"dim": 8}, {"name": "ds2", "unit": "gru", "dim": 8}),
        ({"name": "ds2", "unit": "gru"}, {"name": "ds2"}, {"name": "ds2", "unit": "gru"}),
        ({"name": "ds2", "unit": "gru"}, {"name": "conformer"}, {"name": "conformer"}),
    ],
)
def test_layers_merge(base: object, over: object, merged: object) -> None:
    assert merge(base, over) == merged


def test_merging_leaves_both_layers_as_they_were() -> None:
    base, over = {"a": {"x": 1}}, {"a": {"y": 2}}
    merge(base, over)
    assert (base, over) == ({"a": {"x": 1}}, {"a": {"y": 2}})


def test_a_dotted_key_is_a_nested_mapping() -> None:
    assert nested("train.augment.time_masks", 0) == {"train": {"augment": {"time_masks": 0}}}
