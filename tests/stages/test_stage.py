"""The stage runner: a directory is whole or absent, one process makes it, what it took is told."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightasr import stage
from lightasr.errors import LightasrError, RetryError
from lightasr.jobs import Job
from lightasr.plan import Plan
from lightasr.stage import execute, seconds_before


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(tmp_path, "smoke", ())


@pytest.fixture
def job() -> Job:
    return Job("tokenizer", "char", {"kind": "char", "size": 256})


def runs(monkeypatch: pytest.MonkeyPatch, run: Callable[..., object]) -> None:
    """Let the stage's module be this function."""
    monkeypatch.setattr(stage, "import_module", lambda name: SimpleNamespace(run=run))


def test_a_directory_holds_its_config_its_outputs_and_its_receipt(
    plan: Plan, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: object, inputs: object, out: Path, work: Path) -> dict[str, object]:
        assert not (plan.project / job.dir / "run.json").exists()
        (out / "tokens.txt").write_text("a\n")
        return {"symbols": 1}

    runs(monkeypatch, run)
    execute(plan, job)
    made = plan.project / job.dir
    assert json.loads((made / "config.json").read_text()) == job.config
    receipt = json.loads((made / "run.json").read_text())
    assert receipt["symbols"] == 1
    assert {"stage": "tokenizer", "label": "char", "key": job.key, "attempts": 1}.items() <= (
        receipt.items()
    )
    for field in ("git_commit", "source_digest", "versions", "host", "seconds", "peak_memory_mb"):
        assert receipt[field]
    assert receipt["energy_joules"] is None, "what was not measured is null"
    assert not (plan.project / "checkpoints/tokenizer" / job.id).exists()
    assert [path.name for path in made.parent.iterdir()] == [job.id], "nothing else is left"


def test_what_is_done_is_not_done_again(
    plan: Plan, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    runs(monkeypatch, lambda *arguments: calls.append(1))
    execute(plan, job)
    execute(plan, job)
    assert calls == [1]


@pytest.mark.parametrize(("ordered", "calls"), [("2000-01-01", 1), ("2100-01-01", 2)])
def test_a_workflow_makes_again_what_was_there_when_it_was_started(
    plan: Plan, job: Job, monkeypatch: pytest.MonkeyPatch, ordered: str, calls: int
) -> None:
    """And not what a job of an earlier workflow made since."""
    made: list[int] = []
    runs(monkeypatch, lambda *arguments: made.append(1))
    execute(plan, job)
    monkeypatch.setenv("LIGHTASR_ORDERED", f"{ordered}T00:00:00+00:00")
    execute(plan, job)
    assert len(made) == calls


def test_a_workflow_makes_again_what_is_damaged(
    plan: Plan, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    runs(monkeypatch, lambda *arguments: made.append(1))
    monkeypatch.setenv("LIGHTASR_ORDERED", "2000-01-01T00:00:00+00:00")
    execute(plan, job)
    (plan.project / job.receipt).write_text("no receipt")
    execute(plan, job)
    assert len(made) == 2


def test_a_failure_leaves_no_directory_and_is_counted(
    plan: Plan, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: object, inputs: object, out: Path, work: Path) -> None:
        assert seconds_before(work) == []
        (out / "half").write_text("half")
        raise LightasrError("bad input")

    runs(monkeypatch, fail)
    with pytest.raises(LightasrError, match="bad input"):
        execute(plan, job)
    assert not (plan.project / job.dir).exists()
    runs(monkeypatch, lambda config, inputs, out, work: {"before": len(seconds_before(work))})
    execute(plan, job)
    made = plan.project / job.dir
    receipt = json.loads((made / "run.json").read_text())
    assert (receipt["attempts"], receipt["before"], receipt["ended"]) == (2, 1, ["bad input"])
    assert not (made / "half").exists()


def test_a_killed_attempt_is_counted_and_has_no_last_words(
    plan: Plan, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(config: object, inputs: object, out: Path, work: Path) -> None:
        os._exit(9)

    runs(monkeypatch, killed)
    if (child := os.fork()) == 0:
        execute(plan, job)
    os.waitpid(child, 0)
    runs(monkeypatch, lambda *arguments: None)
    execute(plan, job)
    receipt = json.loads((plan.project / job.receipt).read_text())
    assert (receipt["attempts"], receipt["ended"]) == (2, [None])


def test_a_full_disk_is_told_in_one_line(
    plan: Plan, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    runs(monkeypatch, full)
    with pytest.raises(LightasrError, match=rf"tokenizer {job.id}: No space left on device"):
        execute(plan, job)
    assert not (plan.project / job.dir).exists()


def test_what_snakemake_prepared_or_a_damaged_directory_is_replaced(
    plan: Plan, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan.project / job.dir
    made.mkdir(parents=True)
    (made / "stale").write_text("of a directory without receipt")
    runs(monkeypatch, lambda *arguments: None)
    execute(plan, job)
    assert not (made / "stale").exists()
    assert (made / "run.json").exists()


def test_an_input_that_is_missing_is_named(plan: Plan, job: Job) -> None:
    lm = Job("lm", "4gram", {"order": 4}, {"tokenizer": job})
    with pytest.raises(LightasrError, match=rf"lm {lm.id}: needs tokenizer {job.id} first"):
        execute(plan, lm)


def test_an_input_that_is_damaged_is_refused(
    plan: Plan, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: object, inputs: object, out: Path, work: Path) -> None:
        (out / "tokens.txt").write_text("a\nb\n")

    runs(monkeypatch, run)
    execute(plan, job)
    (plan.project / job.dir / "tokens.txt").write_text("a\n")
    lm = Job("lm", "4gram", {"order": 4}, {"tokenizer": job})
    damage = "tokens.txt has 2 bytes, was made with 4; run `lightasr verify --discard`"
    with pytest.raises(LightasrError, match=rf"reads {job.dir}, which is damaged: {damage}"):
        execute(plan, lm)


def test_a_second_process_is_told_who_is_at_work_and_a_killed_one_leaves_no_lock(
    plan: Plan, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = plan.project / "checkpoints" / job.stage / job.id
    script = f"""
        import sys, time
        from pathlib import Path
        from lightasr.lock import locked
        work = Path({str(work)!r})
        work.mkdir(parents=True)
        with locked(work, "tokenizer char"):
            print("locked", flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RetryError, match=rf"is being made by process {holder.pid} on ") as told:
            execute(plan, job)
        assert told.value.exit_code == 75
        holder.kill()
    runs(monkeypatch, lambda *arguments: None)
    execute(plan, job)
    assert job.done(plan.project)
