"""`lightasr gc`: what no experiment refers to is listed, and removed only when asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lightasr import cli
from lightasr.errors import LightasrError
from lightasr.gc import Found, Verdict, find_references, find_unused, remove
from lightasr.jobs import STAGES, Job
from lightasr.lock import locked
from lightasr.plan import Plan, load_plan
from planning import files_below, write_manifests, write_study

Gc = Callable[..., str]
OUTPUT = "results/train/lstm-0123456789"


@pytest.fixture
def gc(project: Path, monkeypatch: pytest.MonkeyPatch) -> Gc:
    """`lightasr gc ...` in the project: what it prints."""
    monkeypatch.chdir(project)

    def run(*options: str) -> str:
        done = CliRunner().invoke(cli.app, ["gc", *options], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    return run


def leave(project: Path, jobs: Iterable[Job]) -> list[str]:
    """What finished jobs leave, logs too; returns the paths, upstream first and logs last."""
    made = list(jobs)
    for job in made:
        folder = project / job.dir
        folder.mkdir(parents=True, exist_ok=True)
        receipt = {"label": job.label, "key": job.key, "source_digest": "5ca1ab1e"}
        (folder / "config.json").write_text(json.dumps(job.config))
        (folder / "run.json").write_text(json.dumps(receipt))
        log = project / "logs" / job.stage / f"{job.id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("done\n")
    return [job.dir for job in made] + [f"logs/{job.stage}/{job.id}.log" for job in made]


def leave_tables(plan: Plan) -> list[str]:
    """Tables, what DVC shows of them, the report, and their logs."""
    made = []
    for study in plan.studies:
        made += [*study.tables, f"logs/tables/{plan.scale}-{study.name}.log"]
    made += [
        *plan.report,
        f"results/report/data-{plan.scale}.html",
        f"logs/report/{plan.scale}.log",
    ]
    for name in made:
        stamp = {"scale": plan.scale, "study": Path(name).stem.rpartition("-")[0]}
        (plan.project / name).parent.mkdir(parents=True, exist_ok=True)
        (plan.project / name).write_text(json.dumps(stamp))
    return made


def drop_entry(project: Path) -> list[str]:
    """The outputs of an entry that was run at scale `smoke` and then removed from its study."""
    write_study(project, experiments={"plain": {}, "wide": {"model": {"encoder": {"dim": 96}}}})
    with_it = load_plan(project, "smoke", ["mine"])
    leave(project, with_it.jobs.values())
    write_study(project)
    left = load_plan(project, "smoke", ["mine"]).jobs
    return leave(project, [job for job in with_it.jobs.values() if job.id not in left])


def unused(project: Path, verdict: Verdict = Verdict.UNUSED) -> list[str]:
    return [str(one.path) for one in everything(project) if one.verdict == verdict]


def everything(project: Path) -> list[Found]:
    return find_unused(project, find_references(project))


def plans(project: Path) -> Iterator[Plan]:
    """Of all studies, at each scale."""
    studies = [path.stem for path in (project / "config" / "studies").glob("*.yaml")]
    for path in sorted((project / "config" / "scales").glob("*.yaml")):
        yield load_plan(project, path.stem, studies)


def test_what_any_study_needs_at_any_scale_stays(project: Path) -> None:
    write_manifests(project)
    for plan in plans(project):
        leave(project, plan.jobs.values())
        leave_tables(plan)
    assert everything(project) == []


def test_a_removed_entry_leaves_its_own_jobs_and_their_logs(project: Path) -> None:
    dropped = drop_entry(project)
    assert [path.split("/")[-2] for path in dropped] == ["train", "decode", "score"] * 2
    assert unused(project) == dropped


def test_nothing_goes_unless_it_is_asked_for(project: Path, gc: Gc) -> None:
    dropped = drop_entry(project)
    before = files_below(project)
    shown = gc()
    assert all(f"  {path} " in shown for path in dropped)
    assert shown.splitlines()[-1].startswith("`--yes` removes 6 files and directories, ")
    assert files_below(project) == before


def test_what_is_asked_for_goes_and_nothing_else(project: Path, gc: Gc) -> None:
    dropped = drop_entry(project)
    kept = {
        path
        for path in files_below(project)
        if not any(f"{path}/".startswith(f"{one}/") for one in dropped)
    }
    assert "Removed 6 files and directories, " in gc("--yes")
    assert files_below(project) - kept <= {f"checkpoints{rest}" for rest in _stage_folders()}
    assert kept <= files_below(project)
    studies, scales = (
        len(list((project / "config" / kind).glob("*.yaml"))) for kind in ("studies", "scales")
    )
    assert gc() == f"Nothing to remove: judged by {studies} studies at {scales} scales.\n"


def _stage_folders() -> list[str]:
    return ["", *(f"/{stage}" for stage in STAGES)]


def test_usual_names_fit_into_80_columns(project: Path, gc: Gc) -> None:
    drop_entry(project)
    assert max(map(len, gc().splitlines())) <= 80


def test_programs_read_paths_verdicts_and_sizes(project: Path, gc: Gc) -> None:
    dropped = drop_entry(project)
    log = project / dropped[-1]
    log.write_text("x" * 2000)
    tree = json.loads(gc("--json"))
    assert [entry["path"] for entry in tree["found"]] == dropped
    assert {entry["verdict"] for entry in tree["found"]} == {"unused"}
    assert tree["found"][-1]["bytes"] == 2000
    assert tree["bytes"] == sum(entry["bytes"] for entry in tree["found"])
    assert (tree["removed"], json.loads(gc("--json", "--yes"))["removed"]) == (False, True)
    assert not log.exists()


def test_sizes_and_ages_are_told_in_readable_units(project: Path, gc: Gc) -> None:
    folder = project / OUTPUT
    folder.mkdir(parents=True)
    for name, size in (("config.json", 0), ("model.safetensors", 1_500_000)):
        (folder / name).write_bytes(b"\0" * size)
    assert f"  {OUTPUT}    1.5 MB       now" in gc()


# --- what is being made -------------------------------------------------------------------------


def test_what_a_live_process_makes_stays(project: Path, gc: Gc) -> None:
    train, *rest = drop_entry(project)
    work = project / "checkpoints" / Path(train).relative_to("results")
    work.mkdir(parents=True)
    with locked(work, "train"):
        shown = gc("--yes")
    log = next(path for path in rest if path.startswith("logs/train/"))
    for path in (train, str(work.relative_to(project)), log):
        assert (project / path).exists()
    assert not any((project / path).exists() for path in rest if path != log)
    assert "kept: being made" in shown
    assert "    process " in shown


def test_what_a_live_process_may_be_reading_stays(project: Path) -> None:
    train, _, score, *_ = drop_entry(project)
    work = project / "checkpoints" / "decode" / "lstm-0123456789"
    work.mkdir(parents=True)
    with locked(work, "decode"):
        assert train in unused(project, Verdict.BUSY)
        assert score in unused(project)
    assert train in unused(project)


def test_a_job_begun_after_the_list_was_made_keeps_what_it_has(project: Path) -> None:
    train, *_ = drop_entry(project)
    found = everything(project)
    work = project / "checkpoints" / Path(train).relative_to("results")
    work.mkdir(parents=True)
    with locked(work, "train"):
        after = remove(project, found)
    assert (project / train).exists()
    assert [str(one.path) for one in after if one.verdict == Verdict.BUSY] == [train]


# --- what a process that is gone left -----------------------------------------------------------


def test_half_made_directories_go_and_interrupted_work_stays(project: Path) -> None:
    job = load_plan(project, "smoke").of_stage("train")[0]
    work = project / "checkpoints" / "train" / job.id
    half = (project / job.dir).with_name(f".{job.id}.part")
    for folder in (work, half):
        folder.mkdir(parents=True)
    found = everything(project)
    assert [(str(one.path), one.verdict) for one in found] == [
        (f"results/train/.{job.id}.part", Verdict.HALF_MADE)
    ]
    remove(project, found)
    assert work.exists()
    assert not half.exists()


def test_the_checkpoint_of_a_finished_run_goes_and_the_run_stays(project: Path) -> None:
    job = load_plan(project, "smoke").of_stage("train")[0]
    leave(project, [job])
    (project / "checkpoints" / "train" / job.id).mkdir(parents=True)
    found = everything(project)
    assert [(str(one.path), one.verdict) for one in found] == [
        (f"checkpoints/train/{job.id}", Verdict.CHECKPOINT)
    ]
    remove(project, found)
    assert everything(project) == []
    assert job.done(project)


def test_a_kill_in_the_middle_leaves_no_half_of_a_directory_that_counts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, *_ = drop_entry(project)

    remove_tree = shutil.rmtree

    def killed(path: Path) -> None:
        if path.parent.name == "train":
            raise KeyboardInterrupt
        remove_tree(path)

    found = everything(project)
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(project, found)
    monkeypatch.undo()
    assert not (project / train).exists()
    gone = f"results/train/.{Path(train).name}.gone"
    assert unused(project, Verdict.HALF_MADE) == [gone]
    remove(project, everything(project))
    assert everything(project) == []


# --- what stays on doubt ------------------------------------------------------------------------


def test_what_is_not_of_lightasrs_making_stays(project: Path, gc: Gc) -> None:
    names = ["data/features/README", "data/lm/mine", "results/train/notes-2026112001"]
    for name in names:
        (project / name).mkdir(parents=True)
        (project / name / "mine.txt").touch()
    (project / "results/train/.gitignore").touch()
    assert unused(project, Verdict.UNKNOWN) == [*names[:2], "results/train/.gitignore", names[2]]
    assert "left alone" in gc("--yes")
    assert all((project / name / "mine.txt").exists() for name in names)


def test_a_log_of_which_nothing_else_is_left_goes(project: Path) -> None:
    log = f"logs/train/{Path(OUTPUT).name}.log"
    (project / log).parent.mkdir(parents=True)
    (project / log).touch()
    assert unused(project) == [log]


def test_a_copy_of_a_run_under_another_name_stays(project: Path) -> None:
    train, *_ = drop_entry(project)
    shutil.copytree(project / train, project / "results/train/lstm-0000000000")
    assert unused(project, Verdict.UNKNOWN) == ["results/train/lstm-0000000000"]


def test_runs_of_recordings_whose_manifests_are_out_of_reach_stay(project: Path) -> None:
    """On a disk that is not there now, say: their keys cannot be told."""
    write_manifests(project)
    made = leave(project, load_plan(project, "own").jobs.values())
    shutil.rmtree(project / "manifests")
    assert unused(project) == []
    assert sorted(unused(project, Verdict.DOUBT)) == sorted(made)


def test_runs_that_no_entry_asks_for_go_whether_or_not_manifests_are_there(project: Path) -> None:
    write_manifests(project)
    write_study(project, base={"model": {"encoder": {"dim": 96}}})
    plan = load_plan(project, "own", ["mine"])
    shared = load_plan(project, "own").jobs
    dropped = leave(project, [job for job in plan.jobs.values() if job.id not in shared])
    (project / "config" / "studies" / "mine.yaml").unlink()
    shutil.rmtree(project / "manifests")
    found = [path for path in unused(project) if path.startswith("results/train")]
    assert found == [path for path in dropped if path.startswith("results/train")]


def test_nothing_is_told_or_removed_while_a_study_has_a_mistake(project: Path) -> None:
    drop_entry(project)
    write_study(project, "other", experiments={"a": {"model": {"encoder": {"dimm": 96}}}})
    with pytest.raises(LightasrError) as told:
        find_references(project)
    first, last = str(told.value).splitlines()
    assert first.startswith("config/studies/other.yaml: a: model.encoder.dimm: unknown key; ")
    assert "nothing is removed" in last


def test_a_mistake_at_one_scale_alone_names_the_scale(project: Path) -> None:
    write_study(project, base={"corpus": {"test": ["test-clean"]}})
    with pytest.raises(LightasrError, match=r"no part 'test-clean'.* \(at scale own\)"):
        find_references(project)


def test_a_table_that_does_not_suit_every_scale_is_no_mistake(project: Path) -> None:
    write_study(project, columns=["wer/test-clean"])
    assert everything(project) == []


# --- tables and reports -------------------------------------------------------------------------


def test_the_tables_of_a_removed_study_go_and_its_stamp_last(project: Path) -> None:
    write_study(project)
    both = load_plan(project, "smoke", ["mine", "encoders"])
    leave_tables(both)
    mine = both.studies[0]
    (project / "config" / "studies" / "mine.yaml").unlink()
    files = [name for name in unused(project) if not name.startswith("logs/")]
    assert sorted(files) == sorted(mine.tables)
    assert files[-1] == mine.tables[-1]
    assert "logs/tables/smoke-mine.log" in unused(project)


def test_tables_and_report_of_a_removed_scale_go(project: Path) -> None:
    """One that no study names."""
    scales = project / "config" / "scales"
    (scales / "passing.yaml").write_text((scales / "smoke.yaml").read_text())
    for scale in ("smoke", "passing"):
        made = leave_tables(load_plan(project, scale))
    (scales / "passing.yaml").unlink()
    assert sorted(unused(project)) == sorted(path for path in made if "passing" in path)


def test_files_beside_the_tables_stay(project: Path) -> None:
    leave_tables(load_plan(project, "smoke"))
    notes = ["results/tables/smoke/notes.md", "results/report/index.html"]
    for name in notes:
        (project / name).touch()
    assert unused(project) == []
    assert unused(project, Verdict.UNKNOWN) == notes


# --- a choice of scales -------------------------------------------------------------------------


def test_scales_that_are_not_kept_go(project: Path, gc: Gc) -> None:
    smoke, sample = (load_plan(project, scale) for scale in ("smoke", "sample"))
    for plan in (smoke, sample):
        leave(project, plan.jobs.values())
    gc("--keep", "sample", "--yes")
    assert all(job.done(project) for job in sample.jobs.values())
    assert [job.id for job in smoke.jobs.values() if job.done(project)] == [
        job_id for job_id in smoke.jobs if job_id in sample.jobs
    ]


def test_a_scale_to_keep_has_to_exist(project: Path) -> None:
    with pytest.raises(LightasrError, match=r"^no scale 'smoko' .*did you mean 'smoke'\?$"):
        find_references(project, ["smoko"])
