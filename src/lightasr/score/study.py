"""The numbers of a study: a cell per experiment and column, read from their results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from lightasr.errors import LightasrError
from lightasr.score.bootstrap import (
    CER,
    WER,
    Rate,
    holm,
    sampled_difference,
    sampled_rate,
)
from lightasr.score.columns import PRETRAIN, Column, parse_column
from lightasr.score.wer import check_same_utterances, read_errors

SIGNIFICANT = 0.05
# column: its key in the run.json of a training (a pretraining's has a prefix), or of a neural
# language model, and what that is divided by to get the column's unit
RUN_VALUES: dict[str, tuple[str, float]] = {
    "params": ("params", 1),
    "minutes": ("seconds", 60),
    "epoch_minutes": ("epoch_seconds", 60),
    "gpu_hours": ("gpu_seconds", 3600),
    "peak_memory_mb": ("peak_memory_mb", 1),
    "audio_seconds_per_second": ("audio_seconds_per_second", 1),
    "energy_joules": ("energy_joules", 1),
    "lm_params": ("params", 1),
}
# column: its key among the figures of a model that the stage `measure` found, where they differ
FIGURES = {
    "train_step": "train_ms",
    "inference_speed": "rtfx",
    f"{PRETRAIN}step": "train_ms",
    f"{PRETRAIN}saved_mb": "saved_mb",
}
RATIOS = {"train_step", f"{PRETRAIN}step"}
# How the figures of several pretrainings become one; of the others, the last one's counts.
TOGETHER: dict[str, Callable[[list[float]], float]] = {
    "peak_memory_mb": max,
    **dict.fromkeys(("minutes", "gpu_hours", "energy_joules"), sum),
}
# column: its task among those of a probe; the speakers to be told are those of the training parts
TASKS = {"speaker": "speaker", "theme": "theme", "letters": "characters"}
TRAINING_SPEAKERS = "training"
# column: its key among the numbers of a part in a neural language model's run.json
TEXT_VALUES = {"ppl": "perplexity", "bpc": "bits_per_character"}


@dataclass(frozen=True)
class SeedRun:
    """The results of one experiment under one seed; a directory that is not there was not run."""

    seed: int
    train: Path
    decode: Path
    score: Path
    neural_lm: Path | None = None
    pretrain: Path | None = None
    probe: Path | None = None
    pretraining: tuple[Path, ...] = ()
    """All that was done to pretrain, the last first."""

    @property
    def directories(self) -> dict[str, Path]:
        """Where each stage's results lie."""
        first = {"neural_lm": self.neural_lm, "pretrain": self.pretrain, "probe": self.probe}
        own = {"train": self.train, "decode": self.decode, "score": self.score}
        return {name: path for name, path in first.items() if path is not None} | own


@dataclass(frozen=True)
class Row:
    """An experiment of a study."""

    name: str
    runs: tuple[SeedRun, ...]
    model: str = ""
    """What the stage `measure` calls its model."""
    learner: str = ""
    """The same of what is pretrained; empty where nothing is."""


@dataclass(frozen=True)
class Published:
    """Numbers others printed for what a row does, in the columns' own units (WER in percent)."""

    source: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class StudyTable:
    """What goes into one table: the experiments in order, the first is what others compare with."""

    title: str
    study: str
    scale: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    source_digest: str
    """Digest of the source as it is now; results of another source are marked."""
    measure: Path | None = None
    """Where the stage `measure` put its results, if the study asks for them."""
    published: Mapping[str, Published] = field(default_factory=dict)
    """By name of a row."""
    samples: int = 1000
    """Resamples of speakers."""
    seed: int = 1
    """Seed of the resampling."""

    def __post_init__(self) -> None:
        if not self.rows:
            raise LightasrError(f"study {self.study}: no experiments to put in a table")
        names = {row.name for row in self.rows}
        for name in self.published:
            if name not in names:
                raise LightasrError(
                    f"study {self.study}: published.{name} names no experiment of the study; "
                    f"there are {', '.join(sorted(names))}"
                )


@dataclass(frozen=True)
class Cell:
    """One number and what is known of its uncertainty; error rates in percent."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    seeds: int = 0
    speakers: int = 0
    """How many the interval and the test are over."""
    p: float | None = None
    """Holm-adjusted p-value against the study's first row; None where there was no test."""

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANT


BLANK = Cell()


def column_cells(table: StudyTable, name: str) -> list[Cell]:
    """A column of the table: a cell per row, blank where nothing was measured."""
    column = parse_column(name)
    if column.is_error_rate:
        return _error_rate_cells(table, column)
    if column.source == "measure":
        return _figure_cells(table, column)
    return [_measured_cell(row, column) for row in table.rows]


def published_columns(table: StudyTable) -> list[str]:
    """The columns for which somebody's printed number is given, in the table's order."""
    given = {name for published in table.published.values() for name in published.values}
    ours = [name for name in table.columns if name in given]
    return ours + sorted(given - set(ours))


def missing_seeds(table: StudyTable, row: Row) -> list[int]:
    """The seeds of a row for which a column of the table has no result yet."""
    stages = {parse_column(name).source for name in table.columns} - {"measure"}
    return [
        run.seed
        for run in row.runs
        if not all(
            directory.is_dir() for stage, directory in run.directories.items() if stage in stages
        )
    ]


def from_other_source(table: StudyTable, row: Row) -> bool:
    """Whether any result of the row was made by another source than the current one."""
    directories = [path for run in row.runs for path in run.directories.values()]
    directories += [table.measure] if table.measure else []
    return any(
        read_run(directory).get("source_digest") != table.source_digest
        for directory in directories
        if directory.is_dir()
    )


def read_run(directory: Path) -> dict[str, Any]:
    """The `run.json` of a result."""
    return read_json(directory / "run.json")


def read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LightasrError(f"{path}: no such file; remove its directory and run again") from None
    except json.JSONDecodeError as error:
        raise LightasrError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    if not isinstance(tree, dict):
        raise LightasrError(f"{path}: expected a JSON object, found a {type(tree).__name__}")
    return tree


def _error_rate_cells(table: StudyTable, column: Column) -> list[Cell]:
    rate = WER if column.quantity == "wer" else CER
    errors = [_errors_by_seed(row, column) for row in table.rows]
    p_values = _adjusted_p_values(table, errors, rate)
    return [
        _error_rate_cell(table, list(by_seed.values()), rate, p)
        for by_seed, p in zip(errors, p_values, strict=True)
    ]


def _errors_by_seed(row: Row, column: Column) -> dict[Path, pd.DataFrame]:
    paths = [run.score / f"{column.part}.{column.decoder}.errors.tsv" for run in row.runs]
    return {path: read_errors(path) for path in paths if path.is_file()}


def _error_rate_cell(
    table: StudyTable, by_seed: Sequence[pd.DataFrame], rate: Rate, p: float | None
) -> Cell:
    """The mean over seeds; its standard error is that over seeds and speakers."""
    if not by_seed:
        return BLANK
    rates = [100 * rate.of(errors) for errors in by_seed]
    sampled = sampled_rate(by_seed, table.samples, table.seed, rate)
    interval = sampled.student(least=0) if sampled else None
    return Cell(
        mean=statistics.fmean(rates),
        low=100 * interval.low if interval else None,
        high=100 * interval.high if interval else None,
        sd=statistics.stdev(rates) if len(rates) > 1 else None,
        seeds=len(rates),
        speakers=by_seed[0]["speaker"].nunique(),
        p=p,
    )


def _adjusted_p_values(
    table: StudyTable, errors: Sequence[dict[Path, pd.DataFrame]], rate: Rate
) -> list[float | None]:
    """Each row against the first, Holm-corrected over the rows; None where there is no test."""
    first, *others = errors
    raw = [_p_value(table, first, other, rate) for other in others]
    adjusted = iter(holm([p for p in raw if p is not None]))
    return [None, *(None if p is None else next(adjusted) for p in raw)]


def _p_value(
    table: StudyTable,
    first: dict[Path, pd.DataFrame],
    other: dict[Path, pd.DataFrame],
    rate: Rate,
) -> float | None:
    if not first or not other:
        return None
    first_path, first_errors = next(iter(first.items()))
    for path, errors in other.items():
        check_same_utterances(first_errors, errors, str(first_path), str(path))
    difference = sampled_difference(
        list(first.values()), list(other.values()), table.samples, table.seed, rate
    )
    return difference.student_p() if difference else None


def _measured_cell(row: Row, column: Column) -> Cell:
    found = [_measured_of_run(run, column) for run in row.runs]
    values = [value for value in found if value is not None]
    if not values:
        return BLANK
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Cell(mean=statistics.fmean(values), sd=sd, seeds=len(values))


def _measured_of_run(run: SeedRun, column: Column) -> float | None:
    directory = run.directories.get(column.source)
    if directory is None or not directory.is_dir():
        return None
    together = TOGETHER.get(column.quantity.removeprefix(PRETRAIN))
    if column.source != "pretrain" or together is None:
        return _measured(directory, column)
    values = [_measured(each, column) for each in run.pretraining]
    told = [value for value in values if value is not None]
    return float(together(told)) if len(told) == len(values) else None


def _figure_cells(table: StudyTable, column: Column) -> list[Cell]:
    """What the stage `measure` found of each model; a step's time is divided by the first one's."""
    costs = read_costs(table)
    if costs is None:
        return [BLANK] * len(table.rows)
    key = FIGURES.get(column.quantity, column.quantity)
    if column.quantity.startswith(PRETRAIN):
        models, names = costs["pretrainings"], [row.learner for row in table.rows]
    else:
        models, names = costs["models"], [row.model for row in table.rows]
    figures = [models[name][key] if name else None for name in names]
    first = next((figure for figure in figures if figure is not None), 1.0)
    unit = first if column.quantity in RATIOS else 1.0
    return [BLANK if figure is None else Cell(mean=figure / unit) for figure in figures]


def read_costs(table: StudyTable) -> dict[str, Any] | None:
    """All that the stage `measure` found; None where it has not run."""
    if table.measure is None or not table.measure.is_dir():
        return None
    return read_json(table.measure / "costs.json")


def _measured(directory: Path, column: Column) -> float | None:
    if column.quantity == "rtfx":
        return _rtfx(directory, column)
    if column.source == "probe":
        return _probed(directory, column)
    run = read_run(directory)
    if column.quantity in TEXT_VALUES:
        key, divisor = TEXT_VALUES[column.quantity], 1.0
        value = run.get("parts", {}).get(column.part, {}).get(key)
    else:
        key, divisor = RUN_VALUES[column.quantity.removeprefix(PRETRAIN)]
        value = run.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LightasrError(f"{directory / 'run.json'}: {key} is {value!r}, which is not a number")
    return value / divisor


def _probed(probe: Path, column: Column) -> float | None:
    """In percent, of the layer that a probe chose without a look at the test parts."""
    task, part = TASKS[column.quantity], column.part or TRAINING_SPEAKERS
    best = read_run(probe).get("best_layer", {}).get(task)
    rows: list[dict[str, Any]] = read_json(probe / "probes.json").get("probes", [])
    asked = [row for row in rows if (row["task"], row["part"], row["layer"]) == (task, part, best)]
    return 100 * float(asked[0]["accuracy"]) if asked else None


def _rtfx(decode: Path, column: Column) -> float | None:
    """Seconds of audio decoded in a second of computing."""
    path = decode / "decode.json"
    parts: dict[str, dict[str, dict[str, float]]] = read_json(path).get("parts", {})
    timing = parts.get(column.part, {}).get(column.decoder)
    if timing is None:
        return None
    if not timing["seconds"]:
        raise LightasrError(f"{path}: parts.{column.part}.{column.decoder}.seconds is 0")
    return timing["audio_seconds"] / timing["seconds"]
