"""A thousand experiments: planning stays a matter of a second or two, a dry run of seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from planning import run_in, write_study

PLAN_SECONDS = 2.0
DRY_RUN_SECONDS = 30.0


@pytest.fixture
def thousand(project: Path) -> Path:
    """Half of them a grid, half of them entries that extend another; no two alike."""
    grid = {
        "train.lr": [round(index * 1.0e-5, 5) for index in range(1, 101)],
        "model.encoder.layers": [21, 22, 23, 24, 25],
    }
    entries = {
        f"e{epochs}": {"extends": "root", "train": {"epochs": epochs}}
        for epochs in range(1001, 1500)
    }
    write_study(project, experiments={"root": {}, "grid": {"grid": grid}, **entries})
    return project


def timed(project: Path, *command: str) -> tuple[float, str]:
    """Seconds a command takes, and what it prints."""
    started = time.monotonic()
    done = run_in(project, *command)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started, done.stdout


def test_a_thousand_experiments_are_planned_in_two_seconds(thousand: Path) -> None:
    command = ("-m", "lightasr", "plan", "--scale", "smoke", "--study", "mine")
    seconds, out = timed(thousand, *command)
    assert "train      1000  0     1000" in out
    assert seconds <= PLAN_SECONDS


def test_a_thousand_experiments_are_dry_run_in_half_a_minute(thousand: Path) -> None:
    command = ("-m", "snakemake", "-n", "--config", "scale=smoke", "studies=mine")
    seconds, out = timed(thousand, *command)
    assert out.count("rule train_model:") == 1000
    assert seconds <= DRY_RUN_SECONDS
