"""What a user is told of each mistake in `config/`: file, entry, key, nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightasr.errors import LightasrError
from lightasr.plan import load_plan
from planning import write_study

STUDY = "config/studies/mine.yaml"


def mistakes(project: Path, *studies: str) -> list[str]:
    """The lines of the error that planning ends with."""
    with pytest.raises(LightasrError) as error:
        load_plan(project, "smoke", list(studies or ["mine"]))
    return str(error.value).splitlines()


def mistake(project: Path, **keys: Any) -> str:
    """The one line about a study with one mistake."""
    write_study(project, **keys)
    lines = mistakes(project)
    assert len(lines) == 1, "told once"
    return lines[0]


def encoder(**keys: Any) -> dict[str, Any]:
    return {"model": {"encoder": keys}}


ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "key of an encoder": (
        encoder(dimm=96),
        "model.encoder.dimm: unknown key; did you mean 'dim'? (known: name, unit, dim",
    ),
    "key of a section": (
        {"train": {"epoch": 3}},
        "train.epoch: unknown key; did you mean 'epochs'",
    ),
    "section": ({"trian": {}}, "trian: unknown key; did you mean 'train'?"),
    "key of a section in a section": (
        {"train": {"augment": {"time_mask": 1}}},
        "train.augment.time_mask: unknown key; did you mean 'time_masks'?",
    ),
    "key of the corpus": (
        {"corpus": {"sample": {"sed": 1}}},
        "corpus.sample.sed: unknown key; did you mean 'seed'?",
    ),
    "key of a mixer": (
        encoder(name="transformer", mixer={"head": 2}),
        "model.encoder.mixer.head: unknown key; did you mean 'heads'?",
    ),
    "unit": (encoder(unit="lstn"), "model.encoder.unit: unknown unit 'lstn'; did you mean 'lstm'?"),
    "encoder": (
        encoder(name="transfomer"),
        "model.encoder: unknown encoder 'transfomer'; did you mean 'transformer'?",
    ),
    "encoder by its name alone": (
        {"model": {"encoder": "transfomer"}},
        "model.encoder: unknown encoder 'transfomer'; did you mean 'transformer'?",
    ),
    "mixer": (
        encoder(name="transformer", mixer={"name": "mhsaa"}),
        "model.encoder.mixer: unknown mixer 'mhsaa'; did you mean 'mhsa'?",
    ),
    "mixer by its name alone": (
        encoder(name="transformer", mixer="mhsaa"),
        "model.encoder.mixer: unknown mixer 'mhsaa'; did you mean 'mhsa'?",
    ),
    "frontend": ({"model": {"frontend": "conv2"}}, "model.frontend: unknown frontend 'conv2'"),
    "item of a list": (
        {"decode": {"decoders": ["greedy", "beem"]}},
        "decode.decoders.1: unknown decoders 'beem'; did you mean 'beam'?",
    ),
    "word for a number": ({"train": {"lr": "fast"}}, "train.lr: Input should be a valid number"),
    "number as a text": ({"train": {"lr": "0.1"}}, "train.lr: Input should be a valid number"),
    "fraction for a count": (
        {"train": {"epochs": 1.5}},
        "train.epochs: Input should be a valid in",
    ),
    "number out of range": ({"train": {"warmup": 1}}, "train.warmup: Input should be less than 1"),
    "infinity": ({"train": {"lr": float("inf")}}, "train.lr: Input should be a finite number"),
    "number for a text": (
        {"corpus": {"train": [3]}},
        "corpus.train.0: Input should be a valid str",
    ),
    "empty list": ({"corpus": {"test": []}}, "corpus.test: expected at least one"),
    "word for a section": ({"train": "long"}, "train: expected `key: value` lines (found 'long')"),
    "section left empty": ({"model": None}, "model: expected `key: value` lines (found nothing)"),
    "keys that do not go together": (
        encoder(name="transformer", dim=145, mixer={"heads": 4}),
        "model.encoder: mixer.heads (4) does not divide dim (145)",
    ),
    "dataset": (
        {"corpus": {"name": "sampel"}},
        "corpus.name: no dataset 'sampel' in config/datasets.yaml; did you mean 'sample'?",
    ),
    "part": (
        {"corpus": {"train": ["train-clean-10"]}},
        "corpus.train: dataset 'sample' has no part 'train-clean-10'; did you mean 'train-clean-1",
    ),
    "held-out part": (
        {"corpus": {"dev": "dev-cleen"}},
        "corpus.dev: dataset 'sample' has no part 'dev-cleen'; did you mean 'dev-clean'?",
    ),
    "part trained on and held out": (
        {"corpus": {"train": ["dev-clean"]}},
        "corpus: 'dev-clean' is both trained on and held out",
    ),
    "seed": ({"train": {"seed": 3}}, "train.seed: set `seeds` of the study or the scale instead"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_a_mistake_in_an_entry(project: Path, case: str) -> None:
    entry, message = ENTRIES[case]
    told = mistake(project, experiments={"good": {}, "bad": entry})
    assert told.startswith(f"{STUDY}: bad: {message}")


@pytest.mark.parametrize("case", ENTRIES)
def test_a_mistake_in_the_base_is_the_bases(project: Path, case: str) -> None:
    settings, message = ENTRIES[case]
    told = mistake(project, base=settings, experiments={"one": {}, "two": {}})
    assert told.startswith(f"{STUDY}: base: {message}")


@pytest.mark.parametrize("case", ENTRIES)
def test_a_mistake_in_an_entry_others_extend_is_that_entrys(project: Path, case: str) -> None:
    entry, message = ENTRIES[case]
    rows = {"last": {"extends": "next"}, "next": {"extends": "bad"}, "bad": entry}
    assert mistake(project, experiments=rows).startswith(f"{STUDY}: bad: {message}")


def test_a_mistake_in_a_scale_is_the_scales(project: Path) -> None:
    scale = project / "config" / "scales" / "smoke.yaml"
    scale.write_text("features: {melz: 20}\n")
    told = mistake(project, experiments={"one": {}, "two": {}})
    assert told.startswith(
        "config/scales/smoke.yaml: features.melz: unknown key; did you mean 'mels'?"
    )


def test_a_mistake_in_a_scales_size_of_an_encoder(project: Path) -> None:
    scale = project / "config" / "scales" / "smoke.yaml"
    before = scale.read_text()
    rows = {"plain": {"model": {"encoder": "transformer"}}}
    scale.write_text(before + "encoders: {transformer: {dimm: 48}}\n")
    assert mistake(project, experiments=rows).startswith(
        "config/scales/smoke.yaml: encoders: model.encoder.dimm: unknown key; did you mean 'dim'?"
    )
    scale.write_text(before + "encoders: {transforme: {dim: 48}}\n")
    assert "encoders.transforme" in mistake(project, experiments=rows)


def test_a_recipe_of_the_scale_is_checked(project: Path) -> None:
    scale = project / "config" / "scales" / "smoke.yaml"
    tree = yaml.safe_load(scale.read_text())
    tree["recipes"] = {"long": {"train": {"epoch": 3}}}
    scale.write_text(yaml.safe_dump(tree))
    assert mistake(project, recipe="long").startswith(
        "config/scales/smoke.yaml: recipes: long: train.epoch: unknown key; did you mean 'epochs'?"
    )
    assert mistake(project, recipe="lang").startswith(
        f"{STUDY}: recipe: config/scales/smoke.yaml has no recipe 'lang'; did you mean 'long'?"
    )


def test_a_scale_names_studies_that_there_are(project: Path) -> None:
    scale = project / "config" / "scales" / "smoke.yaml"
    scale.write_text("seeds_of: {encoder: [1, 2], xyzzy: [1]}\n")
    with pytest.raises(LightasrError) as raised:
        load_plan(project, "smoke", ["encoders"])
    near, unknown = str(raised.value).splitlines()
    said = "config/scales/smoke.yaml: seeds_of: no study"
    assert near == f"{said} 'encoder' in config/studies; did you mean 'encoders'?"
    assert unknown.startswith(f"{said} 'xyzzy' in config/studies; known: ")


def test_a_mistake_in_a_grid_key_is_told_once(project: Path) -> None:
    grid = {"model.encoder.dimm": [96, 128], "train.lr": [1.0e-3, 3.0e-4]}
    told = mistake(project, experiments={"bad": {"grid": grid}})
    assert told.startswith(f"{STUDY}: bad: model.encoder.dimm: unknown key; did you mean 'dim'?")


def test_a_mistake_in_a_grid_value(project: Path) -> None:
    told = mistake(project, experiments={"bad": {"grid": {"train.lr": [1.0e-3, "fast"]}}})
    assert told == f"{STUDY}: bad: train.lr: Input should be a valid number (found 'fast')"


GRIDS: dict[str, tuple[Any, str]] = {
    "no key": ({}, "grid: expected `key: [value, ...]` lines"),
    "nothing": (None, "grid: expected `key: [value, ...]` lines"),
    "no value": ({"train.lr": []}, "grid: expected `key: [value, ...]` lines"),
    "one value that is no list": ({"train.lr": 1.0}, "grid: expected `key: [value, ...]` lines"),
    "a value twice": ({"train.lr": [0.5, 0.5]}, "grid: 'bad[train.lr=0.5]' is given twice"),
    "seeds": ({"train.seed": [1, 2]}, "train.seed: set `seeds` of the study or the scale instead"),
}


@pytest.mark.parametrize("case", GRIDS)
def test_a_grid_that_is_none(project: Path, case: str) -> None:
    grid, message = GRIDS[case]
    told = mistake(project, experiments={"bad": {"grid": grid}})
    assert told == f"{STUDY}: bad: {message}"


@pytest.mark.parametrize("target", [["a"], 5, {"name": "a"}])
def test_extends_names_one_row(project: Path, target: Any) -> None:
    told = mistake(project, experiments={"a": {}, "bad": {"extends": target}})
    assert told == f"{STUDY}: bad: extends: expected the name of one experiment, found {target!r}"


def test_extends_to_nowhere_names_the_nearest_row(project: Path) -> None:
    rows = {"lstm": {}, "bad": {"extends": "lstn"}, "worse": {"extends": "bad"}}
    told = mistake(project, experiments=rows)
    assert told == f"{STUDY}: bad: extends: no experiment 'lstn'; did you mean 'lstm'?"


def test_a_grid_cannot_be_extended(project: Path) -> None:
    rows = {"lr": {"grid": {"train.lr": [0.1]}}, "bad": {"extends": "lr"}}
    assert (
        mistake(project, experiments=rows) == f"{STUDY}: bad: extends: 'lr' is a grid, not one row"
    )


def test_a_cycle_is_shown_whole_and_once(project: Path) -> None:
    rows = {
        "into": {"extends": "b"},
        "a": {"extends": "c"},
        "b": {"extends": "a"},
        "c": {"extends": "b"},
    }
    assert mistake(project, experiments=rows) == f"{STUDY}: a: extends: a cycle: a -> c -> b -> a"


def test_a_row_that_extends_itself(project: Path) -> None:
    told = mistake(project, experiments={"a": {"extends": "a"}})
    assert told == f"{STUDY}: a: extends: a cycle: a -> a"


@pytest.mark.parametrize("name", ["a b", "a/b", "-a", "lr[0]", "ä"])
def test_a_row_has_a_name_that_a_shell_and_a_path_take(project: Path, name: str) -> None:
    told = mistake(project, experiments={name: {}})
    assert told == f"{STUDY}: experiments: '{name}' is not a name: use letters, digits, _ . + -"


HEADS: dict[str, tuple[dict[str, Any], str]] = {
    "column": ({"columns": ["parms"]}, "columns: unknown column 'parms': did you mean 'params'?"),
    "column's part": (
        {"columns": ["wer/test-cleen"]},
        "columns: unknown column 'wer/test-cleen': did you mean 'wer/test-clean'?",
    ),
    "column of a part that no row scores": (
        {"columns": ["wer/test-other"], "base": {"corpus": {"test": ["test-clean"]}}},
        "columns: unknown column 'wer/test-other': did you mean 'wer/test-clean'?",
    ),
    "no column": ({"columns": []}, "columns: expected at least one"),
    "no row": ({"experiments": {}}, "experiments: expected at least one"),
    "row that is a number": (
        {"experiments": {"a": 5}},
        "experiments.a: expected `key: value` lines (found 5)",
    ),
    "key of the study": (
        {"experimets": {}},
        "experimets: unknown key; did you mean 'experiments'?",
    ),
    "seed given twice": ({"seeds": [1, 2, 1]}, "seeds: names a seed twice"),
    "published without a source": (
        {"published": {"plain": {"params": 1.0}}},
        "published_source: missing: say where 'published' stands",
    ),
    "published row": (
        {"published": {"plane": {"params": 1.0}}, "published_source": "X 2020"},
        "published: 'plane' is no experiment; did you mean 'plain'?",
    ),
    "published column": (
        {"published": {"plain": {"parms": 1.0}}, "published_source": "X 2020"},
        "published: plain: unknown column 'parms': did you mean 'params'?",
    ),
    "published grid row": (
        {
            "experiments": {"lr": {"grid": {"train.lr": [0.5]}}},
            "published": {"lr[train.lr=0.1]": {"params": 1.0}},
            "published_source": "X 2020",
        },
        "published: 'lr[train.lr=0.1]' is no experiment; did you mean 'lr[train.lr=0.5]'?",
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_mistake_in_the_head_of_a_study(project: Path, case: str) -> None:
    keys, message = HEADS[case]
    assert mistake(project, **keys).startswith(f"{STUDY}: {message}")


def test_unknown_studies_and_scales_name_the_nearest(project: Path) -> None:
    assert mistakes(project, "encoder", "nothing-like-it") == [
        "no study 'encoder' in config/studies; did you mean 'encoders'?",
        *mistakes(project, "nothing-like-it"),
    ]
    with pytest.raises(
        LightasrError, match="no scale 'smok' in config/scales; did you mean 'smoke'"
    ):
        load_plan(project, "smok")


def test_mistakes_in_the_other_files(project: Path) -> None:
    config = project / "config"
    datasets = (config / "datasets.yaml").read_text()
    (config / "datasets.yaml").write_text(datasets.replace("builtin:", "buildin:"))
    assert mistakes(project, "encoders")[0].startswith(
        "config/datasets.yaml: sample: buildin: unknown key; did you mean 'builtin'?"
    )
    (config / "config.yaml").write_text("scale: smoke\nstudy: [encoders]\n")
    assert mistakes(project, "encoders")[0].startswith(
        "config/config.yaml: study: unknown key; did you mean 'studies'?"
    )


def test_all_mistakes_of_all_studies_are_told_at_once(project: Path) -> None:
    write_study(
        project,
        "first",
        columns=["parms"],
        base={"train": {"lr": "fast"}},
        experiments={"a": {}, "b": encoder(dimm=1), "c": {"extends": "d"}},
        published={"e": {"params": 1.0}},
    )
    write_study(project, "second", experiments={"a": {"train": {"clip": 0, "epochs": 0}}})
    told = mistakes(project, "first", "second", "third")
    expected = [
        ("first.yaml: base: train.lr:", "valid number"),
        ("first.yaml: b: model.encoder.dimm:", "did you mean 'dim'"),
        ("first.yaml: c: extends:", "no experiment 'd'"),
        ("first.yaml: published:", "'e' is no experiment"),
        ("first.yaml: columns:", "did you mean 'params'"),
        ("first.yaml: published_source:", "missing"),
        ("second.yaml: a: train.epochs:", "greater than or equal to 1"),
        ("second.yaml: a: train.clip:", "greater than 0"),
        ("no study 'third'", "config/studies"),
    ]
    assert len(told) == len(expected), told
    for line, (place, problem) in zip(told, expected, strict=True):
        assert place in line
        assert problem in line
