"""The typed configuration: defaults, descriptions, and the schema that editors read."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from lightasr import editor_schema, schema
from lightasr.configfile import read_yaml
from lightasr.data.sample.config import SampleConfig

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "config" / "studies").glob("*.yaml"))
HINT = "# yaml-language-server: $schema=../schema.json\n"


def sections() -> Iterator[type[BaseModel]]:
    """Every section of the configuration and the configuration of every component."""
    waiting: list[type[BaseModel]] = [schema.Section, SampleConfig]
    while waiting:
        section = waiting.pop()
        waiting += section.__subclasses__()
        if section is not schema.Section:
            yield section


SECTIONS = sorted(set(sections()), key=lambda section: section.__name__)


@pytest.fixture(scope="module")
def editor() -> Draft202012Validator:
    """What an editor checks a study file with."""
    return Draft202012Validator(editor_schema.json_schema())


def study(**entry: Any) -> dict[str, Any]:
    return {"title": "T", "columns": ["params"], "experiments": {"row": entry}}


def test_the_sections_are_found() -> None:
    names = {section.__name__ for section in SECTIONS}
    assert {"Experiment", "Train", "SpecAugment", "ds2", "mhsa", "SampleConfig"} <= names


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_section_and_every_key_says_what_it_means(section: type[BaseModel]) -> None:
    assert section.__doc__
    assert section.model_fields.keys() == editor_schema.descriptions(section).keys()


@pytest.mark.parametrize("kind", schema.COMPONENTS)
def test_a_component_is_called_as_its_file(kind: str) -> None:
    for name, config in schema.COMPONENTS[kind].items():
        assert config().name == name


def test_defaults_are_a_whole_experiment() -> None:
    experiment = schema.Experiment()
    assert schema.Experiment.model_validate_json(experiment.model_dump_json()) == experiment


def test_a_configuration_does_not_change_after_validation() -> None:
    with pytest.raises(ValueError, match="frozen"):
        schema.Experiment().train.lr = 1.0


def test_a_name_alone_stands_for_a_component() -> None:
    spelt = schema.spelt_out({"encoder": {"name": "transformer", "mixer": "mhsa"}, "lr": "x"})
    assert spelt == {"encoder": {"name": "transformer", "mixer": {"name": "mhsa"}}, "lr": "x"}


def test_a_component_set_without_a_name_is_the_default_one() -> None:
    tree = {"model": {"encoder": {"dim": 96}}, "train": {"lr": 1}}
    named = schema.with_names(tree, schema.Experiment)
    assert named == {"model": {"encoder": {"name": "ds2", "dim": 96}}, "train": {"lr": 1}}
    assert tree == {"model": {"encoder": {"dim": 96}}, "train": {"lr": 1}}, "left as it was"


def test_the_default_mixer_is_that_of_the_encoder_around_it() -> None:
    tree = {"model": {"encoder": {"name": "transformer", "mixer": {"heads": 8}}}}
    named = schema.with_names(tree, schema.Experiment)
    assert named["model"]["encoder"]["mixer"] == {"name": "mhsa", "heads": 8}


def test_the_committed_schema_is_that_of_the_source() -> None:
    committed = json.loads((ROOT / "config" / "schema.json").read_text(encoding="utf-8"))
    assert committed == editor_schema.json_schema(), "run `lightasr schema --write`"


def test_the_schema_is_valid_and_complete() -> None:
    tree = editor_schema.json_schema()
    Draft202012Validator.check_schema(tree)
    assert references(tree) <= {f"#/$defs/{name}" for name in tree["$defs"]}


def references(tree: Any) -> set[str]:
    if isinstance(tree, list):
        return {found for value in tree for found in references(value)}
    if not isinstance(tree, dict):
        return set()
    own = {tree["$ref"]} if "$ref" in tree else set()
    return own | {found for value in tree.values() for found in references(value)}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_file_is_accepted(editor: Draft202012Validator, path: Path) -> None:
    assert [error.message for error in editor.iter_errors(read_yaml(path))] == []


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_file_tells_editors_of_the_schema(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith(HINT)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"model": {"encoder": {"dim": 96}}},
        {"model": {"encoder": "transformer"}},
        {"model": {"encoder": {"name": "transformer", "mixer": "mhsa"}}},
        {"model": {"encoder": {"name": "transformer", "mixer": {"heads": 8}}}},
        {"extends": "other", "grid": {"train.lr": [1.0e-3, 3.0e-4]}},
        {"corpus": {"train": ["train-clean-100"], "sample": {"seed": 2}}},
    ],
    ids=str,
)
def test_what_the_plan_takes_the_editor_takes(
    editor: Draft202012Validator, entry: dict[str, Any]
) -> None:
    assert [error.message for error in editor.iter_errors(study(**entry))] == []


@pytest.mark.parametrize(
    "entry",
    [
        {"model": {"encoder": {"name": "ds2", "dimm": 96}}},
        {"model": {"encoder": {"dimm": 96}}},
        {"model": {"encoder": "transfomer"}},
        {"model": {"encoder": {"unit": "lstn"}}},
        {"train": {"lr": "fast"}},
        {"train": {"seed": 3}},
        {"trian": {"lr": 1.0e-3}},
        {"extends": ["other"]},
        {"grid": {}},
        {"grid": {"train.lr": []}},
    ],
    ids=str,
)
def test_what_the_plan_refuses_the_editor_marks(
    editor: Draft202012Validator, entry: dict[str, Any]
) -> None:
    assert not editor.is_valid(study(**entry))
    in_base = study() | {"base": copy.deepcopy(entry)}
    assert not editor.is_valid(in_base)
