"""What `snakemake -n` would run: every scale and study, one new entry, and mistakes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lightasr.plan import load_plan
from planning import files_below, finish, job_counts, run_in, write_manifests

ROOT = Path(__file__).parents[2]
SCALES = sorted(path.stem for path in (ROOT / "config" / "scales").glob("*.yaml"))
STUDIES = sorted(path.stem for path in (ROOT / "config" / "studies").glob("*.yaml"))
NEW_ENTRY = "  ds2_small: {extends: lstm, model: {encoder: {dim: 96}}}\n"


def dry_run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_in(project, "-m", "snakemake", "-n", *arguments)


def add_entry(project: Path, entry: str) -> None:
    study = project / "config" / "studies" / "encoders.yaml"
    text = study.read_text()
    study.write_text(text.replace("experiments:\n", f"experiments:\n{entry}"))


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_runs_every_study(project: Path, scale: str) -> None:
    write_manifests(project)
    run = dry_run(project, "--config", f"scale={scale}", f"studies={','.join(STUDIES)}")
    plan = load_plan(project, scale, STUDIES)
    expected = {
        "fetch_part": len(plan.of_stage("archive")),
        "compute_features": len(plan.of_stage("features")),
        "make_tokenizer": len(plan.of_stage("tokenizer")),
        "build_lm": len(plan.of_stage("lm")),
        "choose_labels": len(plan.of_stage("labels")),
        "cluster_frames": len(plan.of_stage("cluster")),
        "pretrain_model": len(plan.of_stage("pretrain")),
        "train_model": len(plan.of_stage("train")),
        "probe_layers": len(plan.of_stage("probe")),
        "decode_run": len(plan.of_stage("decode")),
        "score_run": len(plan.of_stage("score")),
        "measure_study": len(plan.of_stage("measure")),
        **{f"table_{study}": 1 for study in STUDIES},
        "make_report": 1,
        "all": 1,
        "total": len(plan.jobs) + len(STUDIES) + 2,
    }
    assert job_counts(run) == {rule: count for rule, count in expected.items() if count}


def test_the_scale_for_recordings_of_ones_own_asks_for_their_manifests(project: Path) -> None:
    run = dry_run(project, "--config", "scale=own")
    assert run.returncode == 1
    asked = [line for line in run.stderr.splitlines() if "manifest" in line]
    assert asked == [
        f"config/scales/own.yaml: datasets: own: parts.{part}.manifest: manifests/{part}.tsv: "
        "no such file or directory; write where yours is (see docs/own-corpus.md)"
        for part in ("train", "dev", "test")
    ]


def test_committed_tables_do_not_pass_for_the_runs_behind_them(project: Path) -> None:
    """A fresh clone has the tables, which are in git, and nothing else."""
    plan = load_plan(project)
    for name in (name for study in plan.studies for name in study.tables):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    counts = job_counts(dry_run(project))
    assert counts["train_model"] == len(plan.of_stage("train"))
    assert counts["score_run"] == len(plan.of_stage("score"))
    assert counts["make_report"] == 1


def test_one_new_entry_is_one_new_run_and_nothing_else(project: Path) -> None:
    plan = load_plan(project)
    finish(plan)
    assert "Nothing to be done" in dry_run(project).stdout
    add_entry(project, NEW_ENTRY)
    run = dry_run(project)
    assert job_counts(run) == {
        "train_model": 1,
        "decode_run": 1,
        "score_run": 1,
        "table_encoders": 1,
        "make_report": 1,
        "all": 1,
        "total": 6,
    }
    new = load_plan(project).jobs.keys() - plan.jobs.keys()
    assert all(job_id in run.stdout for job_id in new)


def test_a_mistake_stops_before_any_job_and_is_all_that_is_said(project: Path) -> None:
    add_entry(project, NEW_ENTRY.replace("dim", "dimm"))
    before = files_below(project)
    run = run_in(project, "-m", "snakemake", "--profile", "profiles/local")
    assert run.returncode == 1
    told = [line for line in run.stderr.splitlines() if not line.startswith("Using ")]
    assert len(told) == 1, run.stderr
    assert told[0].startswith(
        "config/studies/encoders.yaml: ds2_small: model.encoder.dimm: unknown key; "
        "did you mean 'dim'?"
    )
    assert run.stdout == ""
    made = {name for name in files_below(project) - before if not name.startswith(".snakemake")}
    assert made == set()


def test_studies_may_be_a_list(project: Path) -> None:
    as_list, as_names = (
        dry_run(project, "--config", "scale=smoke", f"studies={given}")
        for given in ("[encoders,mixers]", "encoders,mixers")
    )
    assert as_list.returncode == 0, as_list.stderr
    assert job_counts(as_list) == job_counts(as_names)


def test_a_number_is_no_study(project: Path) -> None:
    run = dry_run(project, "--config", "studies=5")
    assert run.stderr.splitlines()[-1].startswith("no study '5' in config/studies")


def test_an_unknown_override_is_refused(project: Path) -> None:
    run = dry_run(project, "--config", "study=encoders")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == "--config study: unknown; known: scale, studies"
