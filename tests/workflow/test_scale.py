"""A thousand experiments: planned in a second or two, dry run in little time and little memory.

`lightasr bench plan` tells the seconds of a dry run; nearly all of them are Snakemake's, so what is
tested is how many times as long it takes as one of a plain workflow with as many jobs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from lightasr.plan import load_plan
from planning import SOURCE, finish, run_in, write_study

SEEDS = [1, 2, 3]
PLAN_SECONDS = 2.0
TIMES_PLAIN = 2.5
DRY_RUN_BYTES = 1e9
SAMPLED_EVERY_SECONDS = 0.05
MANY = ("--config", "scale=many", "studies=mine")

pytestmark = pytest.mark.alone


@dataclass(frozen=True)
class Measured:
    """A command that has ended."""

    seconds: float
    processor_seconds: float
    """Of it and its children."""
    peak_bytes: int
    """Of it and its children together, as often as it was looked at."""
    out: str


PLAIN = """
rule all:
    input: [f"score/{i}" for i in range(3000)]
rule features:
    output: "features/{part}"
    shell: "touch {output}"
rule train:
    input: "features/train", "features/dev", "features/tokenizer"
    output: "train/{i}"
    log: "logs/train/{i}"
    shell: "touch {output}"
rule decode:
    input: "train/{i}", "features/dev", "features/test-clean", "features/test-other", "features/lm"
    output: "decode/{i}"
    log: "logs/decode/{i}"
    shell: "touch {output}"
rule score:
    input: "decode/{i}"
    output: "score/{i}"
    log: "logs/score/{i}"
    shell: "touch {output}"
"""
"""As many jobs as three seeds of a thousand rows have, and no plan behind them."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A dry run of the plain workflow."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "Snakefile").write_text(PLAIN)
    run = measured(folder, "-m", "snakemake", "-n")
    assert run.out.count("rule train:") == 3000
    return run


@pytest.fixture
def thousand(project: Path) -> Path:
    """A project with a study of as many rows, and a scale with three seeds of each."""
    write_thousand(project)
    (project / "config" / "scales" / "many.yaml").write_text("title: as the defaults have it\n")
    return project


def write_thousand(project: Path, **more: Any) -> None:
    """Half of them a grid, half of them entries that extend another; no two alike."""
    grid = {
        "train.lr": [round(index * 1.0e-5, 5) for index in range(1, 101)],
        "model.encoder.layers": [21, 22, 23, 24, 25],
    }
    entries = {
        f"e{epochs}": {"extends": "root", "train": {"epochs": epochs}}
        for epochs in range(1001, 1500)
    }
    experiments = {"root": {}, "grid": {"grid": grid}, **entries, **more}
    write_study(project, seeds=SEEDS, experiments=experiments)


def measured(project: Path, *command: str) -> Measured:
    """Run a command to its end, and watch it."""
    out = project / "out.txt"
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with out.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=project, env=environment, stdout=stream, stderr=stream
        )
    peak, ended = [0], threading.Event()
    watcher = threading.Thread(target=watch, args=(process.pid, peak, ended))
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    ended.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    text = out.read_text()
    assert process.returncode == 0, text
    return Measured(
        seconds,
        usage.ru_utime + usage.ru_stime,
        peak[0],  # `ru_maxrss` would count what this process had when it forked
        text,
    )


def watch(pid: int, peak: list[int], ended: threading.Event) -> None:
    """The most memory that a process and its children ever have together."""
    process = psutil.Process(pid)
    while not ended.wait(SAMPLED_EVERY_SECONDS):
        total = 0
        for one in (process, *children(process)):
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak[0] = max(peak[0], total)


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def test_a_thousand_experiments_are_planned_in_two_seconds(thousand: Path) -> None:
    command = ("-m", "lightasr", "plan", "--scale", "smoke", "--study", "mine")
    started = time.monotonic()
    done = run_in(thousand, *command)
    seconds = time.monotonic() - started
    assert "train      1000  0     1000" in done.stdout
    assert seconds <= PLAN_SECONDS


def dry_run(project: Path, plain: Measured) -> str:
    """What `snakemake -n` prints of the thousand, within the limits."""
    run = measured(project, "-m", "snakemake", "-n", *MANY)
    assert run.processor_seconds <= TIMES_PLAIN * plain.processor_seconds
    assert run.peak_bytes <= DRY_RUN_BYTES
    return run.out


@pytest.mark.slow
def test_three_seeds_of_a_thousand_are_dry_run_in_little_time_and_a_gigabyte(
    thousand: Path, plain: Measured
) -> None:
    assert dry_run(thousand, plain).count("rule train_model:") == 3000


@pytest.mark.slow
def test_so_is_one_more_row_beside_a_thousand_that_are_done(
    thousand: Path, plain: Measured
) -> None:
    finish(load_plan(thousand, "many", ["mine"]))
    write_thousand(thousand, one_more={"train": {"epochs": 2000}})
    out = dry_run(thousand, plain)
    assert out.count("rule train_model:") == 3
    assert "rule compute_features:" not in out
