"""Stage `measure`: what the models of a study cost as utterances grow, for columns of its table.

Models have random weights and read random features, an utterance at a time: neither training nor
data is needed. All are measured in turns at each length, so that whatever else the machine does
meets all of them.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightasr import schema
from lightasr.cost.macs import count_macs
from lightasr.cost.timing import (
    SAMPLE_SECONDS,
    Measured,
    described,
    kept_bytes,
    peak_bytes,
    timed,
    torch_threads,
    warmed_up,
)
from lightasr.files import write_atomically
from lightasr.models.asr import AcousticModel, save_model
from lightasr.models.pretrained import PretrainingModel
from lightasr.progress import Bar, track
from lightasr.threads import usable_cores
from lightasr.train.precision import Precision

Figures = dict[str, float]
Measurable = Mapping[str, schema.MeasuredModel | schema.MeasuredPretraining]
COUNTED_SECONDS = 10
WARM_UP = 2  # compiles kernels and fills caches
LETTERS = 29  # of English: the alphabet, apostrophe, space and blank


def run(
    config: schema.MeasureSlice, inputs: Mapping[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """Write `costs.json`: the figures of each model, and all that was measured."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lengths = Lengths.of(config.seconds)
    everything: Measurable = {**config.models, **config.pretrainings}
    costs = measure(everything, device, config.seconds, config.rounds, "measure")
    found = {subject.name: figures(subject, costs.points, lengths) for subject in costs.subjects}
    tree = {
        "lengths": lengths._asdict(),
        "models": {name: found[name] for name in config.models},
        "pretrainings": {name: found[name] for name in config.pretrainings},
        "points": [point.measured() for point in costs.points],
    }
    write_atomically(out / "costs.json", json.dumps(tree, indent=1) + "\n")
    return {"device": costs.machine.get("gpu", device.type), "threads": costs.machine["threads"]}


class Lengths(NamedTuple):
    """Which of the lengths a figure is about."""

    speed: int
    training: int
    growth: Sequence[int]

    @classmethod
    def of(cls, seconds: Sequence[int]) -> Lengths:
        return cls(seconds[len(seconds) // 2], seconds[-2], seconds[-3:])


class Point(NamedTuple):
    """A model at a length."""

    model: str
    seconds: int
    forward_ms: float | None
    """Of inference; a pretraining has none."""
    train_ms: float
    saved_mb: float
    """Activations that wait for the backward pass."""
    peak_mb: float | None
    """The most that a training step holds besides weights and input, on a GPU."""

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio in a second."""
        return self.forward_ms and 1000 * self.seconds / self.forward_ms

    def measured(self) -> Measured:
        return {**self._asdict(), "rtfx": self.rtfx}


class Costs(NamedTuple):
    """All that was measured."""

    subjects: list[Subject]
    points: list[Point]
    machine: Measured


class WholeUtterances(nn.Module):
    """An acoustic model for batches without padding: (B, T, F) -> log-probabilities (B, T', V)."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_btf: Tensor) -> Tensor:
        lengths_b = torch.full((len(x_btf),), x_btf.shape[1], device=x_btf.device)
        return self.model(x_btf, lengths_b)[0]


class WholePretraining(nn.Module):
    """A model that is pretrained, for batches without padding: (B, T, F) -> its loss."""

    def __init__(self, model: PretrainingModel, labels: int) -> None:
        super().__init__()
        self.model, self.labels = model, labels

    def forward(self, x_btf: Tensor) -> Tensor:
        lengths_b = torch.full((len(x_btf),), x_btf.shape[1], device=x_btf.device)
        if not self.labels:
            return self.model(x_btf, lengths_b).nats
        shape = len(x_btf), int(self.model.output_lengths(lengths_b[:1]))
        labels_bt = torch.randint(self.labels, shape, device=x_btf.device)
        return self.model(x_btf, lengths_b, labels_bt).nats


class Subject:
    """A model, and what of it does not depend on lengths."""

    def __init__(
        self,
        name: str,
        measured: schema.MeasuredModel | schema.MeasuredPretraining,
        device: torch.device,
    ) -> None:
        self.name, self.device = name, device
        self.features = measured.features
        self.precision = Precision(measured.precision, device)
        torch.manual_seed(0)
        self.model, self.infers = built(measured), isinstance(measured, schema.MeasuredModel)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.file_bytes = file_bytes(self.model.model)
        self.macs = count_macs(self.model, self.utterance(COUNTED_SECONDS))
        self.model.to(device)

    def utterance(self, seconds: int) -> Tensor:
        """Features (1, T, F)."""
        frames = round(1000 * seconds / self.features.shift_ms)
        return torch.randn(1, frames, self.features.dim)


class Passes:
    """A model's work at a length, and the seconds it took so far."""

    def __init__(self, subject: Subject, seconds: int) -> None:
        self.subject, self.seconds, self.device = subject, seconds, subject.device
        self.model, self.x_btf = subject.model, subject.utterance(seconds).to(subject.device)
        self.work: dict[str, Callable[[], None]] = {"train": self.train}
        if subject.infers:
            self.work = {"forward": self.forward, "train": self.train}
        self.calls: dict[str, int] = {}
        for name, work in self.work.items():
            self.model.train(name == "train")
            self.calls[name] = warmed_up(work, self.device, WARM_UP, SAMPLE_SECONDS)
        with subject.precision.autocast():
            self.saved = kept_bytes(self.model, self.x_btf)
        self.peak = peak_bytes(self.train) if self.device.type == "cuda" else None
        self.took: dict[str, list[float]] = {name: [] for name in self.work}

    @torch.inference_mode()
    def forward(self) -> None:
        self.model(self.x_btf)

    def train(self) -> None:
        with self.subject.precision.autocast():
            total = self.model(self.x_btf).sum()
        total.backward()
        self.model.zero_grad()

    def sample(self) -> None:
        for name, work in self.work.items():
            self.model.train(name == "train")
            self.took[name].append(timed(work, self.device, self.calls[name]))

    def point(self) -> Point:
        return Point(
            self.subject.name,
            self.seconds,
            1000 * statistics.median(self.took["forward"]) if self.subject.infers else None,
            1000 * statistics.median(self.took["train"]),
            self.saved / 1e6,
            None if self.peak is None else self.peak / 1e6,
        )


def built(
    measured: schema.MeasuredModel | schema.MeasuredPretraining,
) -> WholeUtterances | WholePretraining:
    """With weights drawn at random."""
    if isinstance(measured, schema.MeasuredModel):
        dim = measured.features.dim
        return WholeUtterances(AcousticModel(measured.model, dim, symbols(measured.tokenizer)))
    objective = measured.objective
    labels = objective.clusters if isinstance(objective, schema.Clustered) else 0
    return WholePretraining(PretrainingModel(measured), labels)


def symbols(tokenizer: schema.Tokenizer) -> int:
    return LETTERS if tokenizer.kind == "char" else tokenizer.size


def file_bytes(model: nn.Module) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(model, path)
        return path.stat().st_size


def measure(
    models: Measurable,
    device: torch.device,
    seconds: Sequence[int],
    rounds: int,
    title: str,
) -> Costs:
    """Every model at every length; `seconds` ascend."""
    with torch_threads(usable_cores()):
        subjects = [Subject(name, model, device) for name, model in models.items()]
        points: list[Point] = []
        with track(title, total=len(subjects) * (1 + rounds) * sum(seconds)) as bar:
            for length in seconds:
                points += points_at(length, subjects, rounds, bar)
        return Costs(subjects, points, described(device))


def points_at(seconds: int, subjects: Sequence[Subject], rounds: int, bar: Bar) -> list[Point]:
    """All models at one length, in turns."""
    all_passes = []
    for subject in subjects:
        all_passes.append(Passes(subject, seconds))
        bar.update(seconds, seconds=seconds)
    for _ in range(rounds):
        for passes in all_passes:
            passes.sample()
            bar.update(seconds)
    return [passes.point() for passes in all_passes]


def figures(subject: Subject, points: Sequence[Point], lengths: Lengths) -> Figures:
    """What a table says of a model."""
    of = {point.seconds: point for point in points if point.model == subject.name}
    at_length = of[lengths.training]
    found: Figures = {
        "parameters_m": subject.parameters / 1e6,
        "file_mb": subject.file_bytes / 1e6,
        "gmacs_per_s": subject.macs / COUNTED_SECONDS / 1e9,
    }
    if (speed := of[lengths.speed].rtfx) is not None:
        found["rtfx"] = speed
    found |= {"train_ms": at_length.train_ms, "saved_mb": at_length.saved_mb}
    if at_length.peak_mb is not None:
        found["peak_mb"] = at_length.peak_mb
    growing = [of[seconds] for seconds in lengths.growth]
    took = {p.seconds: p.forward_ms for p in growing if p.forward_ms is not None}
    if took:
        found["forward_exp"] = exponent(took)
    return found | {
        "train_exp": exponent({p.seconds: p.train_ms for p in growing}),
        "saved_exp": exponent({p.seconds: p.saved_mb for p in growing}),
    }


def exponent(values: Mapping[int, float]) -> float:
    """Of the power of the keys that values grow by: least squares of the logarithms."""
    logs = [math.log(length) for length in values]
    return statistics.linear_regression(logs, [math.log(v) for v in values.values()]).slope
