"""An ablation is an entry: what docs/add-an-ablation.md adds and removes, and nothing else."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from results_on_disk import make_run, read_json, write_json

from lightasr.gc import find_references, find_unused, remove
from lightasr.jobs import Run
from lightasr.plan import Plan, load_plan
from lightasr.score.results import make_report, make_table
from planning import finish, job_counts, run_in

DOCS = (Path(__file__).parents[2] / "docs" / "add-an-ablation.md").read_text(encoding="utf-8")
ROW, GRID, STUDY = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
GRID_ROWS = [
    f"lr[train.lr={lr},model.encoder.dim={dim}]" for lr in ("0.001", "0.0003") for dim in (96, 192)
]
ONE_TABLE = {"table_encoders": 1, "make_report": 1, "all": 1}


def add(project: Path, entries: str) -> None:
    study = project / "config" / "studies" / "encoders.yaml"
    study.write_text(study.read_text().rstrip("\n") + f"\n{entries}")


def smoke(project: Path, *studies: str) -> Plan:
    return load_plan(project, "smoke", list(studies) or ["encoders"])


def new_jobs(before: Plan, after: Plan) -> dict[str, int]:
    """By stage."""
    return dict(Counter(after.jobs[job_id].stage for job_id in after.jobs.keys() - before.jobs))


def dry_run(project: Path, studies: str = "encoders") -> dict[str, int]:
    options = ("--config", "scale=smoke", f"studies={studies}")
    return job_counts(run_in(project, "-m", "snakemake", "-n", *options))


def carry_out(plan: Plan, scratch: Path) -> None:
    """What the workflow leaves of a plan: every job of it done, tables and report."""
    fresh = [run for e in plan.experiments for run in e.runs if not run.score.done(plan.project)]
    for number, run in enumerate({run.train.id: run for run in fresh}.values()):
        make_results(plan.project, run, scratch / f"{plan.scale}-{len(plan.jobs)}-{number}")
    finish(plan, [job for job in plan.jobs.values() if not job.done(plan.project)])
    for job in plan.jobs.values():
        path = plan.project / job.receipt
        facts = {"seconds": 1.0, "host": "node1", "versions": {}, "git_commit": None}
        write_json(path, facts | read_json(path))
        write_json(path.with_name("config.json"), job.config)
    for name in (*plan.report, *(table for study in plan.studies for table in study.tables)):
        (plan.project / name).parent.mkdir(parents=True, exist_ok=True)
    for study in plan.studies:
        make_table(plan, study)
    make_report(plan)


def make_results(project: Path, run: Run, scratch: Path) -> None:
    """Of two utterances, where the run's jobs are to leave them."""
    said = [("1-1", "1", "HELLO THERE", "HELLO HERE"), ("2-1", "2", "YES", "YES")]
    decoded = {
        f"{part}.{decoder}": said
        for part in ("dev-clean", "test-clean", "test-other")
        for decoder in ("greedy", "beam")
    }
    made = make_run(scratch, "run", run.seed, decoded)
    for folder, job in zip((made.train, made.decode, made.score), run.jobs, strict=True):
        shutil.copytree(folder, project / job.dir, dirs_exist_ok=True)


def table_rows(project: Path, study: str = "encoders") -> list[str]:
    with (project / "results" / "tables" / "smoke" / f"{study}.csv").open() as stream:
        return [row["experiment"] for row in csv.DictReader(stream)]


def unused(project: Path) -> list[str]:
    return [str(one.path) for one in find_unused(project, find_references(project))]


def dirs(plan: Plan) -> set[str]:
    return {job.dir for job in plan.jobs.values()}


# --- adding -------------------------------------------------------------------------------------


def test_a_row_is_one_training_its_decoding_and_its_scoring(project: Path) -> None:
    before = smoke(project)
    add(project, ROW)
    after = smoke(project)
    assert [e.name for e in after.experiments] == [*_names(before), "ds2_small"]
    assert new_jobs(before, after) == {"train": 1, "decode": 1, "score": 1}


def test_a_grid_is_a_row_a_point_and_one_that_equals_a_row_is_trained_once(project: Path) -> None:
    before = smoke(project)
    finish(before)
    add(project, GRID)
    after = smoke(project)
    assert _names(after) == [*_names(before), *GRID_ROWS]
    runs = {e.name: e.runs[0].train.id for e in after.experiments}
    assert runs["lr[train.lr=0.001,model.encoder.dim=192]"] == runs["lstm"]
    assert new_jobs(before, after) == {"train": 3, "decode": 3, "score": 3}
    jobs = {"train_model": 3, "decode_run": 3, "score_run": 3}
    assert dry_run(project) == {**jobs, **ONE_TABLE, "total": 12}


def test_a_new_study_file_is_a_table_and_shares_what_others_have(project: Path) -> None:
    before = smoke(project)
    finish(before)
    (project / "config" / "studies" / "width.yaml").write_text(STUDY)
    both = smoke(project, "encoders", "width")
    width = ["gru", "width[model.encoder.dim=96]", "width[model.encoder.dim=384]"]
    assert _names(both) == [*_names(before), *width]
    assert new_jobs(before, both) == {"train": 2, "decode": 2, "score": 2}
    runs = {"train_model": 2, "decode_run": 2, "score_run": 2}
    rest = {"table_width": 1, "make_report": 1, "all": 1}
    assert dry_run(project, "encoders,width") == {**runs, **rest, "total": 9}


@pytest.mark.parametrize(
    ("entry", "new"),
    [
        ("{decode: {beam_size: 5}}", {"decode": 1, "score": 1}),
        ("{score: {bootstrap_samples: 200}}", {"score": 1}),
        (
            "{features: {mels: 30}}",
            {"features": 4, "tokenizer": 1, "lm": 1, "train": 1, "decode": 1, "score": 1},
        ),
        ("{}", {}),
    ],
    ids=["decoding", "scoring", "features", "equal to another row"],
)
def test_a_row_makes_again_only_what_its_setting_is_read_by(
    project: Path, entry: str, new: dict[str, int]
) -> None:
    before = smoke(project)
    add(project, f"  again: {{extends: lstm, {entry[1:]}\n")
    assert new_jobs(before, smoke(project)) == new


# --- tables and report --------------------------------------------------------------------------


def test_rows_grids_and_studies_come_into_tables_and_report(project: Path, tmp_path: Path) -> None:
    add(project, ROW + GRID)
    (project / "config" / "studies" / "width.yaml").write_text(STUDY)
    plan = smoke(project, "encoders", "width")
    carry_out(plan, tmp_path)
    encoders = ["lstm", "gru", "ligru", "transformer", "ds2_small", *GRID_ROWS]
    width = ["gru", "width[model.encoder.dim=96]", "width[model.encoder.dim=384]"]
    assert table_rows(project) == encoders
    assert table_rows(project, "width") == width
    page = (project / "results" / "report" / "smoke.html").read_text()
    assert all(name in page for name in (*encoders, *width, "Width of the encoder"))


# --- removing -----------------------------------------------------------------------------------


def test_a_removed_entry_leaves_no_row_and_gc_finds_its_runs(project: Path, tmp_path: Path) -> None:
    plain = (project / "config" / "studies" / "encoders.yaml").read_text()
    add(project, ROW + GRID)
    with_them = smoke(project)
    carry_out(with_them, tmp_path)
    assert unused(project) == []
    (project / "config" / "studies" / "encoders.yaml").write_text(plain)
    assert dry_run(project) == {**ONE_TABLE, "total": 3}
    without = smoke(project)
    carry_out(without, tmp_path)
    assert table_rows(project) == ["lstm", "gru", "ligru", "transformer"]
    page = (project / "results" / "report" / "smoke.html").read_text()
    assert "ds2_small" not in page
    assert "lr[" not in page
    assert set(unused(project)) == dirs(with_them) - dirs(without)
    remove(project, find_unused(project, find_references(project)))
    assert unused(project) == []
    assert all(job.done(project) for job in without.jobs.values())


def test_an_entry_that_comes_back_finds_its_runs(project: Path, tmp_path: Path) -> None:
    study = project / "config" / "studies" / "encoders.yaml"
    plain = study.read_text()
    add(project, ROW)
    carry_out(smoke(project), tmp_path)
    study.write_text(plain)
    carry_out(smoke(project), tmp_path)
    add(project, ROW)
    assert dry_run(project) == {**ONE_TABLE, "total": 3}


def test_a_removed_study_leaves_its_table_and_the_runs_no_other_has(
    project: Path, tmp_path: Path
) -> None:
    width = project / "config" / "studies" / "width.yaml"
    width.write_text(STUDY)
    both = smoke(project, "encoders", "width")
    carry_out(both, tmp_path)
    width.unlink()
    encoders = smoke(project)
    left = dirs(both) - dirs(encoders)
    assert set(unused(project)) == left | set(both.studies[1].tables)


def _names(plan: Plan) -> list[str]:
    return [experiment.name for experiment in plan.experiments]
