"""What the trainings of a plan will cost, before any is run.

Products are counted in the very models, on one utterance of usual length; a training does three
times those of its forward passes (none of the encoder's backward where it is frozen). Hours follow
from how many of them a second a device does: said by hand, or found in trainings of the plan that
are done.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lightasr import schema
from lightasr.cost.lengths import built
from lightasr.cost.macs import count_macs
from lightasr.cost.timing import kept_bytes
from lightasr.jobs import Job, Run
from lightasr.overview import aligned
from lightasr.plan import Experiment, Plan
from lightasr.planner import measured_digest, measured_model, measured_pretraining
from lightasr.progress import track
from lightasr.resources import hours_of
from lightasr.score.study import read_run
from lightasr.train.precision import Precision

UTTERANCE = 12  # seconds; LibriSpeech's mean
STATE_BYTES = 16  # of a parameter in fp32: itself, its gradient, Adam's two moments


@dataclass(frozen=True)
class Work:
    """What a model does for a second of audio."""

    params: int
    gmacs_per_s: float
    """Forward."""
    saved_bytes_per_s: float
    """Activations that wait for the backward pass."""


@dataclass(frozen=True)
class Training:
    """One job of the stages `pretrain` and `train`."""

    job: Job
    work: Work
    hours: float
    """Audio heard, over all epochs."""
    passes: int
    """Times the products of a forward pass."""
    took: float | None
    """Device-hours, where it is done."""
    device: str | None
    """On what."""

    @property
    def pflop(self) -> float:
        return 2 * self.passes * self.work.gmacs_per_s * 3600 * self.hours / 1e6

    @property
    def memory_gb(self) -> float:
        """Of one process: weights with what their optimizer keeps, and a batch's activations."""
        batch_seconds = self.job.config["train"]["batch_seconds"]
        activations = self.work.saved_bytes_per_s * batch_seconds
        return (STATE_BYTES * self.work.params + activations) / 1e9

    @property
    def tflops(self) -> float | None:
        """How many a second it did."""
        return None if self.took is None else 1000 * self.pflop / 3600 / self.took


@dataclass(frozen=True)
class Row:
    """An experiment, all its seeds."""

    study: str
    name: str
    pretraining: tuple[Training, ...]
    training: tuple[Training, ...]


@dataclass(frozen=True)
class Forecast:
    """Of a plan."""

    scale: str
    rows: tuple[Row, ...]
    said_tflops: float | None
    """By hand."""

    @cached_property
    def trainings(self) -> tuple[Training, ...]:
        """Each once, whoever shares it."""
        every = (each for row in self.rows for each in (*row.pretraining, *row.training))
        return tuple({each.job.id: each for each in every}.values())

    @cached_property
    def tflops(self) -> float | None:
        """That a device does in a second: as is said, or what the fastest one did."""
        if self.said_tflops is not None:
            return self.said_tflops
        return self.rates[self.device] if self.device else None

    @cached_property
    def device(self) -> str | None:
        """The fastest that trainings were done on; hours of a CPU say nothing of a GPU's."""
        return max(self.rates, key=self.rates.__getitem__, default=None)

    @cached_property
    def rates(self) -> dict[str, float]:
        """TFLOP/s of each device: the median of the trainings that were done on it."""
        found = defaultdict(list)
        for each in self.trainings:
            if each.device is not None and each.tflops is not None:
                found[each.device].append(each.tflops)
        return {device: statistics.median(rates) for device, rates in found.items()}

    def device_hours(self, trainings: Sequence[Training]) -> float | None:
        """Foreseen, those that are done as well."""
        return None if self.tflops is None else _pflop(trainings) * 1000 / 3600 / self.tflops


def foresee_costs(plan: Plan, tflops: float | None = None) -> Forecast:
    """Of every experiment of a plan."""
    found: dict[str, Work] = {}
    experiments = list(plan.experiments)
    with track("products", total=len(experiments)) as bar:
        rows = []
        for experiment in experiments:
            rows.append(_row(plan, experiment, found))
            bar.update(1)
    return Forecast(plan.scale, tuple(rows), tflops)


def _row(plan: Plan, experiment: Experiment, found: dict[str, Work]) -> Row:
    config = experiment.config
    model, learner = measured_model(config), measured_pretraining(config)
    training = tuple(
        _training(plan, run.train, _work(model, found), _passes(config)) for run in experiment.runs
    )
    pretraining: tuple[Training, ...] = ()
    if learner is not None:
        jobs = _pretrainings(experiment.runs[0])
        pretraining = tuple(_training(plan, job, _work(learner, found), 3) for job in jobs)
    return Row(experiment.study, experiment.name, pretraining, training)


def _pretrainings(run: Run) -> Iterator[Job]:
    """The first one first; clusters are made once and cost little."""
    return (job for job in reversed(run.pretraining) if job.stage == "pretrain")


def _passes(config: schema.Experiment) -> int:
    """Forward, and backward by weights and by inputs; a head alone costs next to nothing."""
    return 1 if config.pretrain is not None and config.finetune.frozen == "all" else 3


def _training(plan: Plan, job: Job, work: Work, passes: int) -> Training:
    hours = _hours(plan, job) * job.config["train"]["epochs"]
    if not job.done(plan.project):
        return Training(job, work, hours, passes, None, None)
    receipt = read_run(plan.project / job.dir)
    took = receipt["training_seconds"] * receipt["processes"] / 3600
    return Training(job, work, hours, passes, took, receipt["device"])


def _hours(plan: Plan, job: Job) -> float:
    """Of audio in an epoch: of the training parts, or of what of them is labelled."""
    dev = f"features/{job.config['dev']}"
    parts = {n: j for n, j in job.inputs.items() if n.startswith("features/") and n != dev}
    hours = sum(hours_of(part, plan.project) for part in parts.values())
    if (labels := job.inputs.get("labels")) is None:
        return hours
    copies = max(len(part.config["speeds"]) for part in parts.values())
    return min(hours, copies * float(labels.config["label_minutes"]) / 60)


def _work(
    measured: schema.MeasuredModel | schema.MeasuredPretraining, found: dict[str, Work]
) -> Work:
    name = measured_digest(measured)
    if name not in found:
        found[name] = _counted(measured)
    return found[name]


def _counted(measured: schema.MeasuredModel | schema.MeasuredPretraining) -> Work:
    torch.manual_seed(0)
    model = built(measured)
    frames = round(1000 * UTTERANCE / measured.features.shift_ms)
    x_btf = torch.randn(1, frames, measured.features.dim)
    macs = count_macs(model, x_btf)
    with Precision(measured.precision, torch.device("cpu")).autocast():
        saved = kept_bytes(model.train(), x_btf)
    params = sum(p.numel() for p in model.parameters())
    return Work(params, macs / UTTERANCE / 1e9, saved / UTTERANCE)


def _pflop(trainings: Sequence[Training]) -> float:
    return sum(each.pflop for each in trainings)


# --- what is shown ------------------------------------------------------------------------------


def forecast_json(forecast: Forecast) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "scale": forecast.scale,
        "tflops": forecast.tflops,
        "rates": forecast.rates,
        "rows": [
            {
                "study": row.study,
                "experiment": row.name,
                "pretraining": [_training_json(forecast, each) for each in row.pretraining],
                "training": [_training_json(forecast, each) for each in row.training],
            }
            for row in forecast.rows
        ],
        "pflop": _pflop(forecast.trainings),
        "device_hours": forecast.device_hours(forecast.trainings),
    }


def _training_json(forecast: Forecast, each: Training) -> dict[str, Any]:
    return {
        "id": each.job.id,
        "params": each.work.params,
        "gmacs_per_s": each.work.gmacs_per_s,
        "audio_hours": each.hours,
        "pflop": each.pflop,
        "memory_gb": each.memory_gb,
        "device_hours": forecast.device_hours([each]),
        "took_hours": each.took,
        "device": each.device,
    }


UNITS = {"EFLOP": 1e3, "PFLOP": 1.0, "TFLOP": 1e-3, "GFLOP": 1e-6}
HEADER: tuple[str, ...] = (
    *("experiment", "params", "GMAC/s", "pretraining", "", "training", "", "memory"),
)


def forecast_text(forecast: Forecast) -> str:
    """A table a study: of pretraining and of training all seeds together."""
    lines = [f"scale {forecast.scale}"]
    for study in dict.fromkeys(row.study for row in forecast.rows):
        own = [row for row in forecast.rows if row.study == study]
        shown = [HEADER, *(_shown(forecast, row) for row in own)]
        if not any(row.pretraining for row in own):
            shown = [cells[:3] + cells[5:] for cells in shown]
        lines += ["", study, *aligned(shown)]
    count, total = len(forecast.trainings), _pflop(forecast.trainings)
    lines += ["", f"In all {_flop(total)} in {count} trainings, those shared counted once"]
    hours = forecast.device_hours(forecast.trainings)
    if hours is None:
        lines[-1] += "."
        lines.append("Say --tflops, that a device does in a second, to see hours.")
    else:
        how = "as said" if forecast.said_tflops is not None else f"as on {forecast.device}"
        lines[-1] += (
            f":\n{_time(hours)} of a device at {_number(forecast.tflops or 0)} TFLOP/s, {how}."
        )
    return "\n".join(lines)


def _shown(forecast: Forecast, row: Row) -> tuple[str, ...]:
    work = row.training[0].work
    memory = max(each.memory_gb for each in (*row.pretraining, *row.training))
    return (
        row.name,
        f"{work.params / 1e6:.2f} M",
        f"{work.gmacs_per_s:.3g}",
        *_costs(forecast, row.pretraining),
        *_costs(forecast, row.training),
        f"{memory:.1f} GB",
    )


def _costs(forecast: Forecast, trainings: Sequence[Training]) -> tuple[str, str]:
    if not trainings:
        return "", ""
    hours = forecast.device_hours(trainings)
    return _flop(_pflop(trainings)), "" if hours is None else _time(hours)


def _flop(pflop: float) -> str:
    """In the unit that leaves one to three digits before the point."""
    unit = next((unit for unit, size in UNITS.items() if pflop >= size), list(UNITS)[-1])
    return f"{_number(pflop / UNITS[unit])} {unit}"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{_number(hours)} h"
    return f"{60 * hours:.0f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
