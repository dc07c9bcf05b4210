"""What DVC shows of a study: error rates by experiment as metrics, and the data of its plots."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lightasr.files import write_atomically
from lightasr.score.study import SeedRun, StudyTable, read_json

WER_FIELDS = ("experiment", "seed", "part", "decoder", "wer")
CURVE_FIELDS = ("experiment", "seed", "epoch", "train_loss", "dev_wer")


def write_metrics(table: StudyTable, path: Path) -> None:
    """Experiment, part, decoder -> WER in percent, the mean over the seeds that are there."""
    metrics: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for row in table.rows:
        seeds: dict[tuple[str, str], list[float]] = {}
        for run in row.runs:
            for part, decoder, wer in _error_rates(run):
                seeds.setdefault((part, decoder), []).append(wer)
        parts: dict[str, dict[str, float]] = {}
        for (part, decoder), rates in seeds.items():
            parts.setdefault(part, {})[decoder] = statistics.fmean(rates)
        metrics[row.name] = {"wer": parts}
    _write(path, json.dumps(metrics, indent=1) + "\n")


def write_error_rates(table: StudyTable, path: Path) -> None:
    """A line a seed, part and decoder."""
    lines = (
        (row.name, run.seed, *rate)
        for row in table.rows
        for run in row.runs
        for rate in _error_rates(run)
    )
    _write(path, _csv(WER_FIELDS, lines))


def write_curves(table: StudyTable, path: Path) -> None:
    """A line an epoch of each training."""
    lines = (
        (row.name, run.seed, epoch["epoch"], epoch["train_loss"], 100 * float(epoch["dev_wer"]))
        for row in table.rows
        for run in row.runs
        for epoch in _epochs(run)
    )
    _write(path, _csv(CURVE_FIELDS, lines))


def _error_rates(run: SeedRun) -> Iterator[tuple[str, str, float]]:
    """Part, decoder and WER in percent; nothing of a run that is not there yet."""
    if run.score.is_dir():
        for part, decoders in read_json(run.score / "scores.json").items():
            for decoder, counts in decoders.items():
                yield part, decoder, 100 * counts["wer"]


def _epochs(run: SeedRun) -> Iterator[dict[str, str]]:
    if run.train.is_dir():
        with (run.train / "curves.csv").open(encoding="utf-8", newline="") as stream:
            yield from csv.DictReader(stream)


def _csv(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *lines])
    return stream.getvalue()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
