"""Who is at work in a project, and what a killed Snakemake leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightasr.snakemakes import AT_WORK, LOCKS, clear_after_killed, holders

ANNOUNCE = "from lightasr.snakemakes import announce; announce(); print('here', flush=True); "


def start(project: Path, then: str) -> subprocess.Popen[str]:
    """A process that announces itself, once it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", ANNOUNCE + then], cwd=project, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a Snakemake has locked what it makes."""
    monkeypatch.chdir(tmp_path)
    LOCKS.mkdir(parents=True)
    (LOCKS / "0.output.lock").write_text("results/train/lstm/run.json\n")
    return tmp_path


def test_who_is_at_work_is_named_until_the_end(project: Path) -> None:
    process = start(project, "import time; time.sleep(60)")
    assert len(holders()) == 1
    assert holders()[0].startswith(f"process {process.pid} on ")
    clear_after_killed()
    assert list(LOCKS.iterdir()), "the lock of who is at work stays"
    process.terminate()
    process.wait()


def test_the_lock_of_a_killed_one_is_removed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start(project, "import time; time.sleep(60)")
    process.kill()
    process.wait()
    assert holders() == []
    clear_after_killed()
    assert list(LOCKS.iterdir()) == list(AT_WORK.iterdir()) == []
    assert "was killed here" in capsys.readouterr().err


def test_a_lock_of_unknown_origin_stays(project: Path) -> None:
    assert start(project, "").wait() == 0
    assert list(AT_WORK.iterdir()) == [], "who ends leaves nothing"
    clear_after_killed()
    assert list(LOCKS.iterdir())


def test_a_dead_process_that_nobody_waited_for_holds_nothing(project: Path) -> None:
    """In a container without an init process the dead stay in the process table."""
    process = start(project, "import os; os._exit(1)")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    record = json.loads(next(AT_WORK.glob("*/lock")).read_text())
    assert record["pid"] == process.pid
    assert holders() == []
    process.wait()
