"""What Snakemake shows of the workflow, and the progress lines behind it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from lightasr import progress
from snakemake_logger_plugin_lightasr import LogHandler


@pytest.fixture
def handler() -> LogHandler:
    settings = SimpleNamespace(
        quiet=None, show_failed_logs=True, debug_dag=False, verbose=False, dryrun=False
    )
    settings.printshellcmds, settings.nocolor, settings.stdout = False, True, False
    return LogHandler(settings, None)


def record(event: LogEvent | None = None, message: str = "", **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", logging.INFO, "", 0, message, None, None)
    vars(made).update(fields, **({"event": event} if event else {}))
    return made


def start(handler: LogHandler, log: Path) -> None:
    handler.handle(record(LogEvent.RUN_INFO, stats={"total": 7}))
    wildcards = {"id": "lstm-0123456789"}
    names = {"rule_name": "train_model", "wildcards": wildcards, "log": [str(log)]}
    handler.handle(record(LogEvent.JOB_INFO, jobid=3, **names))


def test_a_running_job_is_shown_by_the_last_line_of_its_log(
    handler: LogHandler, tmp_path: Path
) -> None:
    log = tmp_path / "train.log"
    start(handler, log)
    assert list(handler.lines())[1:] == ["  train_model lstm"]
    name = "train transformer-mhsa-d782571f71"
    last = f"{name}   25%  epoch 4/16  loss 1.781  WER 93.3%  1:03:13 left"
    log.write_text(f"{name}   24%  epoch 4/16  loss 1.801\n{last}\n")
    whole, job = handler.lines()
    assert whole.startswith("0 of 7 jobs done")
    assert job == "  train transformer-mhsa   25%  epoch 4/16  loss 1.781  WER 93.3%  1:03:13 left"
    assert len(job) <= 80


def test_a_finished_job_is_one_line(
    handler: LogHandler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(handler, tmp_path / "train.log")
    handler.handle(record(LogEvent.JOB_FINISHED, job_id=3))
    handler.handle(record(message="Select jobs to execute..."))
    handler.handle(record(message="Nothing to be done (all requested files are present)."))
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "[1/7] train_model lstm-0123456789  0:00",
        "Nothing to be done (all requested files are present).",
    ]


def test_progress_without_a_terminal_is_whole_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress.track("train lstm", total=4) as bar:
        bar.update(1, epoch="1/4", loss=1.23456)
        bar.update(1, epoch="2/4", loss=1.0, line=True)
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.startswith("train lstm   25%  epoch 1/4  loss 1.235")
    assert second.startswith("train lstm   50%  epoch 2/4  loss 1")
    assert last == "train lstm  done in 0:00"


def test_progress_of_an_earlier_attempt_is_not_in_the_estimate() -> None:
    bar = progress.Bar("t", 10, live=False, every=1)
    bar.start_at(8)
    assert bar.remaining() is None
    bar.started -= 100
    bar.done += 1
    assert bar.remaining() == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (65.4, "1:05"), (3599.6, "1:00:00"), (4000, "1:06:40")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert progress.clock(seconds) == shown
