"""From `config/` to experiments, jobs, keys and paths: what decides a key, and what does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightasr import jobs
from lightasr.errors import LightasrError
from lightasr.jobs import STAGES, Job, Run, digest
from lightasr.plan import Experiment, Plan, load_plan
from lightasr.schema import COMPONENTS, Train
from planning import finish, run_in, write_study

ROOT = Path(__file__).parents[2]
DOWNSTREAM = {
    "archive": {"archive", "features", "tokenizer", "lm", "train", "decode", "score"},
    "features": {"features", "tokenizer", "lm", "train", "decode", "score"},
    "tokenizer": {"tokenizer", "train", "decode", "score"},
    "lm": {"lm", "decode", "score"},
    "neural_lm": {"neural_lm", "decode", "score"},
    "train": {"train", "decode", "score"},
    "decode": {"decode", "score"},
    "score": {"score"},
    "measure": {"measure"},
}
"""What is made again where everything that there is by default is asked for;"""
AFTER_LABELS = {"labels", "tokenizer", "lm", "neural_lm", "train", "probe", "decode", "score"}
DOWNSTREAM_OF_ALL = {
    **DOWNSTREAM,
    "archive": {"archive", "features", "cluster", "pretrain", *AFTER_LABELS},
    "features": {"features", "cluster", "pretrain", *AFTER_LABELS},
    "train": {"train", "probe", "decode", "score"},
    "probe": {"probe"},
    "labels": AFTER_LABELS,
    "tokenizer": AFTER_LABELS - {"labels", "lm"},
    "cluster": {"cluster", "pretrain", "train", "probe", "decode", "score"},
    "pretrain": {"cluster", "pretrain", "train", "probe", "decode", "score"},
}
"""where all that there is is asked for."""
ALL = {
    "neural_lm": {},
    "probe": {},
    "pretrain": {"objective": "hubert"},
    "corpus": {"label_minutes": 0.5},
}
on_one_project = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def planned(project: Path, **keys: Any) -> Plan:
    write_study(project, **keys)
    return load_plan(project, "smoke", ["mine"])


def row(plan: Plan, name: str) -> Experiment:
    return next(experiment for experiment in plan.experiments if experiment.name == name)


def one_run(project: Path, **settings: Any) -> Run:
    """The run of a study with one row and these settings."""
    return row(planned(project, experiments={"row": settings}), "row").runs[0]


def ids(plan: Plan, stage: str) -> set[str]:
    return {job.id for job in plan.of_stage(stage)}


def changed(before: Plan, after: Plan) -> set[str]:
    """Stages of which some job is another one."""
    return {stage for stage in STAGES if ids(before, stage) != ids(after, stage)}


# --- resolution ----------------------------------------------------------------------------------


def test_each_layer_overrides_the_ones_before_it(project: Path) -> None:
    scale = project / "config" / "scales" / "smoke.yaml"
    scale.write_text("train: {epochs: 2, lr: 0.02, clip: 2.0, warmup: 0.2, batch_seconds: 20}\n")
    plan = planned(
        project,
        base={"train": {"lr": 0.03, "clip": 3.0, "warmup": 0.3, "batch_seconds": 30}},
        experiments={
            "root": {"train": {"clip": 4.0, "warmup": 0.4, "batch_seconds": 40}},
            "middle": {"extends": "root", "train": {"warmup": 0.5, "batch_seconds": 50}},
            "leaf": {
                "extends": "middle",
                "train": {"batch_seconds": 60},
                "grid": {"train.batch_seconds": [70]},
            },
        },
    )
    train = row(plan, "leaf[train.batch_seconds=70]").config.train
    assert train.weight_decay == Train().weight_decay, "typed default"
    assert train.epochs == 2, "scale"
    assert train.lr == 0.03, "base"
    assert train.clip == 4.0, "extends, two steps up"
    assert train.warmup == 0.5, "extends, one step up"
    assert train.batch_seconds == 70, "grid"
    assert row(plan, "middle").config.train.batch_seconds == 50, "its own"


def test_lists_replace(project: Path) -> None:
    plan = planned(
        project,
        base={"decode": {"lm_weights": [0.5, 1.0]}},
        experiments={"row": {"decode": {"lm_weights": [2.0]}}},
    )
    assert row(plan, "row").config.decode.lm_weights == (2.0,)


def test_another_name_starts_afresh(project: Path) -> None:
    plan = planned(
        project,
        base={"model": {"encoder": {"name": "ds2", "unit": "gru", "dim": 96}}},
        experiments={
            "same": {"model": {"encoder": {"layers": 2}}},
            "other": {"model": {"encoder": {"name": "transformer", "layers": 2}}},
        },
    )
    same, other = (row(plan, name).config.model.encoder for name in ("same", "other"))
    assert (same.name, same.unit, same.dim, same.layers) == ("ds2", "gru", 96, 2)
    assert other == COMPONENTS["encoder"]["transformer"](layers=2), "its own defaults else"


def test_a_name_alone_is_short_for_a_mapping_with_it(project: Path) -> None:
    plan = planned(
        project,
        experiments={
            "long": {"model": {"encoder": {"name": "transformer", "mixer": {"name": "mhsa"}}}},
            "short": {"model": {"encoder": {"name": "transformer", "mixer": "mhsa"}}},
            "wide": {"extends": "long", "model": {"encoder": {"mixer": {"heads": 8}}}},
            "still": {"extends": "wide", "model": {"encoder": {"mixer": "mhsa"}}},
        },
    )
    assert row(plan, "long").config == row(plan, "short").config
    assert row(plan, "wide").config == row(plan, "still").config, "the same mixer: nothing afresh"


def test_a_component_without_a_name_is_the_default_one(project: Path) -> None:
    encoder = one_run(project, model={"encoder": {"dim": 96}}).train.config["model"]["encoder"]
    assert (encoder["name"], encoder["dim"]) == ("ds2", 96)


def test_the_default_component_gives_way_to_a_named_one(project: Path) -> None:
    plan = planned(
        project,
        base={"model": {"encoder": {"unit": "gru"}}},
        experiments={"row": {"model": {"encoder": {"name": "transformer"}}}},
    )
    assert row(plan, "row").config.model.encoder.name == "transformer"


def test_a_grid_is_a_row_for_each_combination(project: Path) -> None:
    grid = {"train.lr": [1.0e-3, 3.0e-4], "model.encoder.unit": ["lstm", "gru"]}
    plan = planned(project, experiments={"plain": {}, "lr": {"grid": grid}})
    assert [experiment.name for experiment in plan.experiments] == [
        "plain",
        "lr[train.lr=0.001,model.encoder.unit=lstm]",
        "lr[train.lr=0.001,model.encoder.unit=gru]",
        "lr[train.lr=0.0003,model.encoder.unit=lstm]",
        "lr[train.lr=0.0003,model.encoder.unit=gru]",
    ]
    last = list(plan.experiments)[-1].config
    assert (last.train.lr, last.model.encoder.unit) == (0.0003, "gru")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(60.0, "60"), (3.0e-4, "0.0003"), (1.0e-7, "1e-07"), (0.12345678, "0.12345678"), (7, "7")],
)
def test_a_grid_value_is_shown_short_and_exact(project: Path, value: float, shown: str) -> None:
    key = "train.epochs" if isinstance(value, int) else "train.lr"
    plan = planned(project, experiments={"g": {"grid": {key: [value]}}})
    assert [experiment.name for experiment in plan.experiments] == [f"g[{key}={shown}]"]


def test_a_run_for_each_seed_and_fewer_where_the_scale_says_so(project: Path) -> None:
    write_study(project, seeds=[1, 2, 3])
    (project / "config" / "scales" / "long.yaml").write_text("title: as many as the study asks\n")
    (project / "config" / "scales" / "short.yaml").write_text("seeds: [7]\n")
    (project / "config" / "scales" / "mixed.yaml").write_text(
        "seeds: [7]\nseeds_of: {mine: [4, 5]}\n"
    )
    seeds = {
        scale: [run.seed for run in row(load_plan(project, scale, ["mine"]), "plain").runs]
        for scale in ("long", "short", "mixed")
    }
    assert seeds == {"long": [1, 2, 3], "short": [7], "mixed": [4, 5]}


def test_a_study_asked_for_twice_is_planned_once(project: Path) -> None:
    plan = load_plan(project, "smoke", ["encoders", "encoders"])
    assert [study.name for study in plan.studies] == ["encoders"]


# --- keys ----------------------------------------------------------------------------------------

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "train": st.fixed_dictionaries(
            {},
            optional={
                "lr": st.floats(1e-5, 1e-1),
                "epochs": st.integers(1, 50),
                "augment": st.fixed_dictionaries({}, optional={"time_masks": st.integers(0, 9)}),
            },
        ),
        "model": st.fixed_dictionaries(
            {},
            optional={
                "encoder": st.fixed_dictionaries(
                    {"name": st.just("ds2")},
                    optional={
                        "unit": st.sampled_from(["lstm", "gru", "ligru"]),
                        "dim": st.integers(8, 512),
                    },
                )
            },
        ),
        "features": st.fixed_dictionaries({}, optional={"mels": st.integers(8, 128)}),
        "decode": st.fixed_dictionaries({}, optional={"beam_size": st.integers(1, 500)}),
        "lm": st.fixed_dictionaries({}, optional={"order": st.integers(2, 6)}),
    },
)


def test_a_digest_reads_mappings_in_no_order() -> None:
    """So that moving a field within its class gives nothing a new key."""
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def reordered(tree: Any) -> Any:
    """The same mapping, its keys the other way round."""
    if not isinstance(tree, dict):
        return tree
    return {key: reordered(tree[key]) for key in reversed(tree)}


@on_one_project
@given(settings=CHANGES)
def test_the_order_of_keys_means_nothing(project: Path, settings: dict[str, Any]) -> None:
    there = one_run(project, **settings)
    back = one_run(project, **reordered(settings))
    assert [job.id for job in there.jobs] == [job.id for job in back.jobs]


@on_one_project
@given(settings=CHANGES)
def test_a_value_means_the_same_wherever_it_is_written(
    project: Path, settings: dict[str, Any]
) -> None:
    """In the entry, in the base, or in an entry that it extends; whatever stands beside it."""
    there = one_run(project, **settings).score.id
    assert row(planned(project, base=settings), "plain").runs[0].score.id == there
    plan = planned(
        project,
        title="Another title",
        columns=["minutes"],
        experiments={
            "first": {"train": {"lr": 0.5}},
            "named": settings,
            "leaf": {"extends": "named"},
        },
    )
    assert row(plan, "named").runs[0].score.id == there
    assert row(plan, "leaf").runs[0].score.id == there


@on_one_project
@given(first=CHANGES, second=CHANGES)
def test_equal_prefixes_are_shared_and_nothing_else_is(
    project: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Two rows have the same job exactly where the job's slice and all above it agree."""
    plan = planned(project, experiments={"a": first, "b": second})
    a, b = (row(plan, name).runs[0] for name in "ab")
    for job_a, job_b in zip(a.jobs, b.jobs, strict=True):
        equal = job_a.config == job_b.config and {
            name: up.id for name, up in job_a.inputs.items()
        } == {name: up.id for name, up in job_b.inputs.items()}
        assert (job_a is job_b) == equal
        assert (job_a.key == job_b.key) == equal


def test_a_project_elsewhere_has_the_same_keys(project: Path) -> None:
    here = load_plan(project, "smoke")
    moved = project.with_name("moved")
    shutil.move(project, moved)
    assert [*load_plan(moved, "smoke").jobs] == [*here.jobs]


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("archive", {"corpus": {"sample": {"seed": 2}}}),
        ("features", {"features": {"mels": 24}}),
        ("tokenizer", {"tokenizer": {"size": 500}}),
        ("lm", {"lm": {"order": 3}}),
        ("train", {"train": {"lr": 0.5}}),
        ("train", {"model": {"encoder": {"dim": 96}}}),
        ("decode", {"decode": {"beam_size": 7}}),
        ("score", {"score": {"bootstrap_samples": 200}}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_value_changes_its_stage_and_what_reads_it(
    project: Path, stage: str, change: dict[str, Any]
) -> None:
    before = planned(project)
    assert changed(before, planned(project, base=change)) == DOWNSTREAM[stage]


def test_fine_tunings_share_a_pretraining(project: Path) -> None:
    """Head, seeds, labels, and how it is fine-tuned are none of its business."""
    pretrained = {"pretrain": {}}
    rows = {
        "plain": {},
        "a": pretrained,
        "b": pretrained | {"finetune": {"frozen": "all"}, "model": {"head": "layer_sum"}},
        "c": pretrained | {"train": {"schedule": "tri_stage"}, "corpus": {"label_minutes": 0.5}},
    }
    plan = planned(project, experiments=rows, seeds=[1, 2])
    (pretrain,) = plan.of_stage("pretrain")
    trains = [run.train for name in "abc" for run in row(plan, name).runs]
    assert len({job.id for job in trains}) == len(trains)
    assert all(job.inputs["pretrain"] is pretrain for job in trains)
    assert "pretrain" not in row(plan, "plain").runs[0].train.inputs
    assert plan.job("pretrain", "a") is pretrain
    with pytest.raises(LightasrError, match="'plain' has no pretrain"):
        plan.job("pretrain", "plain")
    for other in (
        {"features": {"mels": 30}},
        {"model": {"encoder": {"dim": 48}}},
        {"pretrain": {"objective": {"codes": 9}}},
    ):
        after = planned(project, base=other, experiments={"a": pretrained | other})
        assert ids(after, "pretrain").isdisjoint({pretrain.id})


def test_a_key_younger_than_results_is_in_no_digest_while_it_has_its_default(
    project: Path,
) -> None:
    rows = {"plain": {}, "said": {"train": {"select": "wer"}}, "new": {"train": {"select": "cer"}}}
    plain, said, new = (e.runs[0].train for e in planned(project, experiments=rows).experiments)
    assert "select" not in plain.config["train"]
    assert plain.key == said.key != new.key
    assert new.config["train"]["select"] == "cer"


def test_a_study_takes_a_recipe_of_the_scale(project: Path) -> None:
    """Under its base and its entries; nothing but what comes of it decides the table's key."""
    scales = project / "config" / "scales"
    tree = yaml.safe_load((scales / "smoke.yaml").read_text())

    def recipe(scale: str, **settings: Any) -> None:
        tree["recipes"] = {"mine": {"train": settings}}
        (scales / f"{scale}.yaml").write_text(yaml.safe_dump(tree))

    recipe("smoke", epochs=5, lr=0.5, batch_seconds=20)
    recipe("other", epochs=6, lr=0.5, batch_seconds=20)
    write_study(
        project,
        recipe="mine",
        base={"train": {"lr": 0.1}},
        experiments={"plain": {}, "own": {"train": {"epochs": 7}}},
    )
    keys = {}
    for scale, epochs in (("smoke", [5, 7]), ("other", [6, 7])):
        plan = load_plan(project, scale, ["mine"])
        assert [e.config.train.epochs for e in plan.experiments] == epochs
        assert {e.config.train.lr for e in plan.experiments} == {0.1}
        assert {e.config.train.batch_seconds for e in plan.experiments} == {20}
        (keys[scale],) = (study.key for study in plan.studies)
    recipe("smoke", epochs=4, lr=0.5, batch_seconds=20)
    recipe("other", epochs=6, lr=0.7, batch_seconds=20)
    after = {scale: load_plan(project, scale, ["mine"]).studies[0].key for scale in keys}
    assert after["smoke"] != keys["smoke"]
    assert after["other"] == keys["other"]


def test_a_scale_says_how_large_an_encoder_is_that_a_study_chooses(project: Path) -> None:
    """Whether base or entry chooses it; a study's own settings go over it."""
    scale = project / "config" / "scales" / "smoke.yaml"
    sizes = "encoders: {transformer: {dim: 48, layers: 5}, conformer: {dim: 72}}\n"
    scale.write_text(scale.read_text() + sizes)
    rows = {
        "default": {},
        "chosen": {"model": {"encoder": "transformer"}},
        "wide": {"extends": "chosen", "model": {"encoder": {"dim": 64}}},
        "mixed": {"extends": "chosen", "model": {"encoder": {"mixer": "fnet"}}},
        "left": {"extends": "chosen", "model": {"encoder": "convnext"}},
        "back": {"extends": "left", "model": {"encoder": "transformer"}},
    }
    found = {e.name: e.config.model.encoder for e in planned(project, experiments=rows).experiments}
    assert found["default"] == found["default"].model_validate({"name": "ds2"})
    assert (found["chosen"].dim, found["chosen"].layers) == (48, 5)
    assert (found["wide"].dim, found["wide"].layers) == (64, 5)
    assert (found["mixed"].dim, found["mixed"].mixer.name) == (48, "fnet")
    assert found["left"] == found["left"].model_validate({"name": "convnext"})
    assert found["back"] == found["chosen"]
    based = planned(
        project, base=rows["chosen"], experiments={"a": {}, "b": rows["wide"] | {"extends": "a"}}
    )
    assert [e.config.model.encoder.dim for e in based.experiments] == [48, 64]


def test_a_scale_says_how_models_are_pretrained_and_a_study_whether(project: Path) -> None:
    scale = project / "config" / "scales" / "smoke.yaml"
    tree = yaml.safe_load(scale.read_text())
    tree |= {"pretrain": {"train": {"epochs": 7}}, "neural_lm": {"unit": "word"}}
    scale.write_text(yaml.safe_dump(tree))
    plan = planned(
        project,
        experiments={
            "scratch": {},
            "pretrained": {"pretrain": {"objective": "bestrq"}},
            "not": {"extends": "pretrained", "pretrain": None},
        },
    )
    assert not plan.of_stage("neural_lm")
    assert row(plan, "scratch").runs[0].pretrain is None
    assert row(plan, "not").runs[0].pretrain is None
    pretrained = row(plan, "pretrained").config.pretrain
    assert pretrained is not None
    assert pretrained.train.epochs == 7


def test_without_pretraining_no_key_is_another(project: Path) -> None:
    """`finetune` alone changes nothing."""
    before = planned(project)
    assert changed(before, planned(project, base={"finetune": {"layer_decay": 0.5}})) == set()


def test_a_pretraining_learns_from_parts_that_are_there_and_not_held_out(project: Path) -> None:
    more = {"pretrain": {"parts": ["train-clean-100", "train-other-500"]}}
    parts = {"name": "librispeech"}
    plan = planned(project, base={"corpus": parts, **more})
    inputs = {job.label for job in plan.of_stage("pretrain")[0].inputs.values()}
    assert inputs == {"train-clean-100-fbank", "train-other-500-fbank", "dev-clean-fbank"}
    for name, reason in (
        ("test-clean", "'test-clean' is held out"),
        ("lm-text", "'lm-text' holds text, not recordings"),
        ("train-clean", "has no part 'train-clean'; did you mean 'train-clean-"),
    ):
        with pytest.raises(LightasrError, match=f"mine.yaml: base: pretrain.parts: .*{reason}"):
            planned(project, base={"corpus": parts, "pretrain": {"parts": [name]}})


def test_what_is_probed_is_the_trained_model_or_what_it_began_with(project: Path) -> None:
    rows = {
        "no": {},
        "trained": {"probe": {}},
        "learnt": {"probe": {"of": "pretrain"}, "pretrain": {"objective": "bestrq"}},
    }
    plan = planned(project, experiments=rows)
    assert row(plan, "no").runs[0].probe is None
    for name, stage in (("trained", "train"), ("learnt", "pretrain")):
        run = row(plan, name).runs[0]
        assert run.probe is not None
        assert run.probe.inputs[stage] is getattr(run, stage)
        assert run.probe.receipt in plan.studies[0].receipts
        labels = {n for n in run.probe.inputs if n.startswith("features/")}
        assert labels == {"features/train-clean-100", "features/test-clean", "features/test-other"}
    with pytest.raises(LightasrError, match=r"mine\.yaml: a: probe\.of: 'pretrain', but nothing"):
        planned(project, experiments={"a": {"probe": {"of": "pretrain"}}})


def test_few_labels_are_those_of_tokenizer_language_models_and_training(project: Path) -> None:
    base = {"neural_lm": {}, "corpus": {"label_minutes": 0.5}}
    plan = planned(project, base=base)
    (labels,) = plan.of_stage("labels")
    assert labels.label == "0.5min"
    for stage in ("tokenizer", "lm", "neural_lm", "train"):
        assert all(job.inputs["labels"] is labels for job in plan.of_stage(stage)), stage


def test_models_are_measured_for_studies_with_such_columns(project: Path) -> None:
    rows = {"a": {}, "b": {"model": {"encoder": {"dim": 48}}}}
    assert not planned(project, experiments=rows).of_stage("measure")
    before = planned(project, experiments=rows, columns=["train_step", "wer/*"])
    (job,) = before.of_stage("measure")
    assert job.receipt in before.studies[0].receipts
    assert not job.inputs, "neither data nor training"
    assert len(job.config["models"]) == 2
    names_and_training = {"c": {}, "d": rows["b"] | {"train": {"lr": 0.5}}}
    for same in (rows | {"c": {"train": {"epochs": 9}}}, names_and_training):
        after = planned(project, experiments=same, columns=["saved_mb"], seeds=[7])
        assert ids(after, "measure") == {job.id}
    for other in ({"a": {}}, {"a": {"features": {"mels": 30}}, "b": rows["b"]}):
        after = planned(project, experiments=other, columns=["saved_mb"])
        assert ids(after, "measure").isdisjoint({job.id})


def test_a_scale_says_how_models_are_measured(project: Path) -> None:
    scale = project / "config" / "scales" / "smoke.yaml"
    (job,) = planned(project, columns=["train_step"]).of_stage("measure")
    assert job.config["seconds"] == [1, 2, 4]
    scale.write_text(scale.read_text().replace("[1, 2, 4]", "[4, 2, 1]"))
    with pytest.raises(LightasrError, match=r"smoke\.yaml: measure\.seconds: .*does not ascend"):
        planned(project)


def test_another_seed_changes_what_is_trained(project: Path) -> None:
    scale = project / "config" / "scales" / "smoke.yaml"
    scale.write_text(scale.read_text().replace("seeds: [1]\n", ""))
    before, after = planned(project, seeds=[1]), planned(project, seeds=[2])
    assert changed(before, after) == DOWNSTREAM["train"]
    assert ids(before, "train") < ids(planned(project, seeds=[1, 2]), "train")


@pytest.mark.parametrize("stage", STAGES)
def test_a_new_stage_version_makes_the_stage_again_and_what_reads_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = planned(project, base=ALL, columns=["params", "train_step"])
    labels = {job.label for job in before.jobs.values()}
    tables = before.studies[0].tables
    monkeypatch.setitem(jobs.STAGE_VERSION, stage, jobs.STAGE_VERSION[stage] + 1)
    after = load_plan(project, "smoke", ["mine"])
    assert changed(before, after) == DOWNSTREAM_OF_ALL[stage]
    assert {job.label for job in after.jobs.values()} == labels
    assert after.studies[0].tables[-1] != tables[-1], "the table is stale as well"


def test_a_new_table_version_makes_tables_and_report_alone_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_plan(project, "smoke")
    stale = before.studies[0].tables[-1], before.report[-1]
    monkeypatch.setitem(jobs.STAGE_VERSION, "tables", jobs.STAGE_VERSION["tables"] + 1)
    after = load_plan(project, "smoke")
    assert changed(before, after) == set()
    assert after.studies[0].tables[-1] != stale[0]
    assert after.report[-1] != stale[1]


def test_what_a_table_shows_changes_the_table_alone(project: Path) -> None:
    before = planned(project)
    after = planned(project, columns=["minutes"])
    assert changed(before, after) == set()
    assert before.studies[0].tables[-1] != after.studies[0].tables[-1]


def test_adding_rows_and_studies_renames_nothing(project: Path) -> None:
    before = load_plan(project, "smoke", ["encoders"])
    write_study(
        project,
        base={"model": {"encoder": {"unit": "gru"}}},
        experiments={"lstm": {}, "x": {"train": {"lr": 0.5}}},
    )
    for studies in (["encoders", "mine"], ["mine", "encoders"]):
        after = load_plan(project, "smoke", studies)
        assert before.jobs.keys() < after.jobs.keys()


def test_a_label_is_the_same_whatever_the_row_is_called(project: Path) -> None:
    plan = planned(project, experiments={"one": {}, "two": {"train": {"lr": 0.5}}})
    assert {job.label for job in plan.of_stage("train")} == {"lstm"}
    encoder = {"model": {"encoder": {"name": "transformer", "mixer": "mhsa"}}}
    assert one_run(project, **encoder).train.label == "transformer-mhsa"


# --- the graph -----------------------------------------------------------------------------------


def test_upstream_jobs_come_first_and_each_once(project: Path) -> None:
    plan = load_plan(project, "smoke")
    seen: set[str] = set()
    for job in plan.jobs.values():
        assert {up.id for up in job.inputs.values()} <= seen
        assert job.id not in seen
        seen.add(job.id)


def test_rows_of_two_studies_share_what_is_equal(project: Path) -> None:
    write_study(project, experiments={"same": {"model": {"encoder": {"unit": "gru"}}}})
    plan = load_plan(project, "smoke", ["encoders", "mine"])
    assert row(plan, "same").runs[0].train is row(plan, "gru").runs[0].train


def test_greedy_decoding_needs_no_language_model(project: Path) -> None:
    plan = planned(project, base={"decode": {"decoders": ["greedy"]}})
    assert plan.of_stage("lm") == []
    assert "sample-lm-text" not in {job.label for job in plan.jobs.values()}


def test_a_directory_holds_stage_label_and_key(project: Path) -> None:
    train = one_run(project).train
    assert train.dir == f"results/train/lstm-{train.key}"
    assert train.receipt == f"{train.dir}/run.json"
    assert len(train.key) == 10
    assert int(train.key, 16) >= 0


def test_a_done_job_asks_for_nothing(project: Path) -> None:
    plan = load_plan(project, "smoke")
    train = plan.of_stage("train")[0]
    assert plan.inputs(train.id) == [up.receipt for up in train.inputs.values()]
    finish(plan, [train])
    assert plan.inputs(train.id) == []


def test_a_run_is_found_by_every_name_it_has(project: Path) -> None:
    plan = load_plan(project, "smoke")
    run = row(plan, "gru").runs[0]
    for name in ("gru", "encoders/gru", run.train.id, run.score.id, f"{run.train.dir}/"):
        assert plan.run(name) is run
    assert plan.job("decode", "gru") is run.decode
    assert plan.job("train", run.train.id) is run.train


def test_a_row_that_is_not_there_is_answered_with_the_nearest(project: Path) -> None:
    plan = load_plan(project, "smoke")
    with pytest.raises(LightasrError, match="no run 'lstn' at scale 'smoke'; did you mean 'lstm'"):
        plan.run("lstn")
    archive = plan.of_stage("archive")[0].id
    with pytest.raises(LightasrError, match=f"no archive job .* did you mean '{archive}'"):
        plan.job("archive", archive[:-1])


def test_a_row_of_several_studies_must_be_told_apart(project: Path) -> None:
    write_study(project, experiments={"gru": {"train": {"lr": 0.5}}})
    plan = load_plan(project, "smoke", ["encoders", "mine"])
    with pytest.raises(LightasrError, match="several studies: say encoders/gru or mine/gru"):
        plan.run("gru")


@pytest.mark.parametrize(
    "program",
    [
        "from pathlib import Path; from lightasr.plan import load_plan; load_plan(Path())",
        "import sys; sys.argv[1:] = ['plan']; from lightasr.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code",
    ],
    ids=["load_plan", "lightasr plan"],
)
def test_planning_imports_nothing_heavy(project: Path, program: str) -> None:
    heavy = ("torch", "torchaudio", "lhotse", "numpy", "pandas", "soundfile", "matplotlib")
    check = f"import sys, json; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    done = run_in(project, "-c", f"{program}\n{check}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_study_of_the_guide_is_planned(project: Path) -> None:
    """The page that teaches how to add an ablation shows a study as it may be written."""
    guide = (ROOT / "docs" / "add-an-ablation.md").read_text(encoding="utf-8")
    _, block = guide.split("```yaml\n# yaml-language-server", 1)
    text = block.split("\n", 1)[1].split("```", 1)[0]
    (project / "config" / "studies" / "width.yaml").write_text(text, encoding="utf-8")
    plan = load_plan(project, "smoke", ["width"])
    rows = ["gru", "width[model.encoder.dim=96]", "width[model.encoder.dim=384]"]
    assert [experiment.name for experiment in plan.experiments] == rows


def test_a_beam_search_without_any_text_is_refused_by_file_entry_and_key(project: Path) -> None:
    settings = {"corpus": {"text": None}, "lm": {"transcripts": False}}
    with pytest.raises(
        LightasrError, match=r"studies/mine\.yaml: row: corpus\.text: null.*no language model"
    ):
        one_run(project, **settings)
    run = one_run(project, **settings, decode={"decoders": ["greedy"]})
    assert "lm" not in run.decode.inputs


# --- language models -----------------------------------------------------------------------------


def lm_of(project: Path, **settings: Any) -> Job:
    return one_run(project, **settings).decode.inputs["lm"]


@pytest.mark.parametrize(
    "settings",
    [{"vocabulary": 1000}, {"format": "probing"}, {"bits": 8}, {"interpolate": True}],
    ids=str,
)
def test_what_it_sets_changes_it(project: Path, settings: dict[str, Any]) -> None:
    before = planned(project)
    assert changed(before, planned(project, base={"lm": settings})) == DOWNSTREAM["lm"]


def test_an_ngram_of_symbols_hangs_on_the_tokenizer(project: Path) -> None:
    words = lm_of(project)
    assert "tokenizer" not in words.inputs
    letters = one_run(project, lm={"unit": "char", "order": 6})
    lm = letters.decode.inputs["lm"]
    assert lm.inputs["tokenizer"] is letters.train.inputs["tokenizer"]
    assert lm.label == "char-6gram"
    pieces = lm_of(project, tokenizer={"kind": "bpe"}, lm={"unit": "piece"})
    assert pieces.inputs["tokenizer"].label == "bpe"


@pytest.mark.parametrize(
    ("kind", "unit", "right"), [("char", "piece", "char"), ("bpe", "char", "piece")]
)
def test_units_that_the_tokenizer_does_not_write(
    project: Path, kind: str, unit: str, right: str
) -> None:
    settings = {"tokenizer": {"kind": kind}, "lm": {"unit": unit}}
    with pytest.raises(LightasrError, match=rf"mine\.yaml: row: lm\.unit: .* `unit: {right}`"):
        one_run(project, **settings)
    one_run(project, **settings, decode={"decoders": ["greedy"]})


def test_a_search_that_needs_words_is_given_no_other_units(project: Path) -> None:
    with pytest.raises(LightasrError, match=r"row: lm\.unit: 'char', but the search `flashlight`"):
        one_run(project, lm={"unit": "char"}, decode={"decoders": ["flashlight"]})


def test_a_mix_is_fitted_on_the_dev_part(project: Path) -> None:
    run = one_run(project, lm={"interpolate": True})
    lm = run.decode.inputs["lm"]
    assert lm.inputs["dev"] is run.decode.inputs["features/dev-clean"]
    assert {"text", "dev", "features/train-clean-100"} == lm.inputs.keys()


@pytest.mark.parametrize(
    "settings",
    [{"lm": {"interpolate": True, "transcripts": False}}, {"lm": {"interpolate": True}}],
    ids=["no transcripts", "no text"],
)
def test_a_mix_of_one_is_refused(project: Path, settings: dict[str, Any]) -> None:
    if "transcripts" not in settings["lm"]:
        settings = {**settings, "corpus": {"text": None}}
    with pytest.raises(LightasrError, match=r"row: lm\.interpolate: mixes text, .* but "):
        one_run(project, **settings)


def test_a_published_model_in_place_of_the_text(project: Path) -> None:
    corpus = {"name": "librispeech"}
    job = lm_of(project, corpus=corpus, lm={"arpa": "3-gram-pruned-3e-7"})
    assert job.label == "3-gram-pruned-3e-7"
    assert {name: up.label for name, up in job.inputs.items()} == {
        "arpa": "librispeech-3-gram-pruned-3e-7"
    }
    mixed = lm_of(project, corpus=corpus, lm={"arpa": "3-gram-pruned-3e-7", "interpolate": True})
    assert mixed.inputs.keys() == {"arpa", "dev", "features/train-clean-100"}


def test_a_model_of_ones_own_is_known_by_its_content(project: Path) -> None:
    own = project / "models" / "lab 1.arpa.gz"
    own.parent.mkdir()
    own.write_text("one")
    job = lm_of(project, lm={"arpa": "models/lab 1.arpa.gz"})
    assert (job.label, job.inputs) == ("lab-1", {})
    assert job.files == {"arpa": "models/lab 1.arpa.gz"}
    assert "models" not in json.dumps(job.config)
    own.rename(own.with_name("lab 1.arpa"))
    assert lm_of(project, lm={"arpa": "models/lab 1.arpa"}).key == job.key, "a path means nothing"
    own.with_name("lab 1.arpa").write_text("two")
    assert lm_of(project, lm={"arpa": "models/lab 1.arpa"}).key != job.key


def test_a_model_that_is_nowhere_is_answered_with_the_nearest(project: Path) -> None:
    with pytest.raises(
        LightasrError,
        match=r"row: lm\.arpa: '3-gran' is neither a file nor a part of dataset 'librispeech'"
        "; did you mean '3-gram'",
    ):
        lm_of(project, corpus={"name": "librispeech"}, lm={"arpa": "3-gran"})


def test_the_study_of_the_page_on_language_models_is_planned(project: Path) -> None:
    page = (ROOT / "docs" / "language-models.md").read_text(encoding="utf-8")
    text = page.split("```yaml\n# yaml-language-server", 1)[1].split("```", 1)[0]
    path = project / "config" / "studies" / "language_models.yaml"
    path.write_text(text.split("\n", 1)[1], encoding="utf-8")
    plan = load_plan(project, "smoke", ["language_models"])
    rows = ["words", "trigram", "transcripts", "mixed", "letters", "pieces"]
    assert [experiment.name for experiment in plan.experiments] == rows
    assert len(plan.of_stage("lm")) == len(rows)


# --- pretrainings that tell clusters -------------------------------------------------------------


def hubert(**keys: Any) -> dict[str, Any]:
    return {"pretrain": {"objective": {"name": "hubert", **keys}}}


def chain(project: Path, **settings: Any) -> list[Job]:
    """Clusters and pretrainings of a row, the last one first."""
    found: list[Job] = []
    job = one_run(project, **settings).pretrain
    while job is not None:
        found.append(job)
        job = job.inputs.get("clusters" if job.stage == "pretrain" else "pretrain")
    return found


def test_clusters_and_pretrainings_follow_each_other(project: Path) -> None:
    """First clusters are of features; the last pretraining is what is fine-tuned."""
    jobs = chain(project, **hubert(iterations=3))
    assert [job.stage for job in jobs] == ["pretrain", "cluster"] * 3
    assert [bool(job.config.get("of")) for job in jobs[1::2]] == [False, False, True]
    parts = {"features/train-clean-100", "features/dev-clean"}
    assert all(parts <= job.inputs.keys() for job in jobs)
    assert one_run(project, **hubert(iterations=3)).train.inputs["pretrain"].id == jobs[0].id
    assert not planned(project, base={"pretrain": {}}).of_stage("cluster")


def test_iterations_share_those_before_them(project: Path) -> None:
    """So does what is clustered later, and how; each in what hangs on it alone."""
    short, long = (chain(project, **hubert(iterations=n)) for n in (1, 3))
    assert [job.id for job in short] == [job.id for job in long[-2:]]
    lower = chain(project, **hubert(iterations=3, layer=1))
    assert [a.id == b.id for a, b in zip(lower, long, strict=True)] == [False] * 4 + [True] * 2
    warm = chain(project, **hubert(iterations=3, temperature=0.2))
    assert [a.id == b.id for a, b in zip(warm, long, strict=True)] == [False] * 5 + [True]
    for other in (hubert(iterations=3, cluster_hours=1.0), hubert(iterations=3, clusters=9)):
        ids_of_all = {job.id for job in chain(project, **other)}
        assert ids_of_all.isdisjoint({job.id for job in long})


def test_clusters_of_features_know_no_encoder(project: Path) -> None:
    model = {"encoder": {"name": "transformer", "dim": 16}}
    plain, other = chain(project, **hubert()), chain(project, model=model, **hubert())
    assert plain[-1].id == other[-1].id
    assert plain[-2].id != other[-2].id


def test_a_layer_that_the_encoder_lacks_is_refused(project: Path) -> None:
    for name, layers in (("ds2", 3), ("transformer", 3), ("efficientnetv2", 4)):
        model = {"encoder": {"name": name, "layers": 3}}
        assert planned(project, base={"model": model, **hubert(layer=layers)})
        with pytest.raises(LightasrError, match=rf"objective\.layer: 5, .* has {layers} layers"):
            planned(project, base={"model": model, **hubert(layer=5)})
