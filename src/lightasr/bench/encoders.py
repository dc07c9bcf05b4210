"""What the encoders of a study cost as utterances grow: time, memory, products, size.

Models have random weights and read random features, an utterance at a time. `forward_ms` is
inference, `train_ms` a forward pass in training and the gradient of the log-probabilities' sum.
All rows are measured in turns at each length, so that whatever else the machine does meets all.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import torch
from torch import Tensor, nn

from lightasr import schema
from lightasr.bench.macs import count_macs
from lightasr.bench.measuring import (
    SAMPLE_SECONDS,
    Device,
    chosen_device,
    described,
    kept_bytes,
    peak_bytes,
    timed,
    torch_threads,
    warmed_up,
)
from lightasr.bench.results import Measured
from lightasr.models.asr import AcousticModel, save_model
from lightasr.page.figures import COLOURS, SETTINGS, new_figure, to_svg
from lightasr.plan import Experiment
from lightasr.progress import Bar, track
from lightasr.threads import usable_cores

REFERENCE = "mhsa"
TITLE = "Encoders: cost against the length of utterances"
SECONDS = (5, 10, 20, 40, 80)
COUNTED_SECONDS = 10
ROUNDS = 7
WARM_UP = 2  # compiles kernels and fills caches
LETTERS = 29  # of English: the alphabet, apostrophe, space and blank


class Point(NamedTuple):
    """An encoder at a length."""

    experiment: str
    seconds: int
    forward_ms: float
    train_ms: float
    saved_mb: float
    """Activations that wait for the backward pass."""
    peak_mb: float | None
    """The most that a training step holds besides weights and input, on a GPU."""

    @property
    def rtfx(self) -> float:
        """Seconds of audio in a second."""
        return 1000 * self.seconds / self.forward_ms

    def measured(self) -> Measured:
        return {**self._asdict(), "rtfx": self.rtfx}


class Found(NamedTuple):
    """All that was measured."""

    rows: list[Measured]
    points: list[Point]
    machine: Measured
    note: str


# --- measuring ----------------------------------------------------------------------------------


class WholeUtterances(nn.Module):
    """An acoustic model for batches without padding: (B, T, F) -> log-probabilities (B, T', V)."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_btf: Tensor) -> Tensor:
        lengths_b = torch.full((len(x_btf),), x_btf.shape[1], device=x_btf.device)
        return self.model(x_btf, lengths_b)[0]


class Subject:
    """A row of the study: its model, and what of it does not depend on lengths."""

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        self.name, self.device = experiment.name, device
        self.features = experiment.config.features
        torch.manual_seed(0)
        model = AcousticModel(
            experiment.config.model, self.features.dim, symbols(experiment.config.tokenizer)
        )
        self.parameters, self.file_bytes = model.parameter_count(), file_bytes(model)
        self.model = WholeUtterances(model)
        self.macs = count_macs(self.model, self.utterance(COUNTED_SECONDS))
        self.model.to(device)

    def utterance(self, seconds: int) -> Tensor:
        """Features (1, T, F)."""
        frames = round(1000 * seconds / self.features.shift_ms)
        return torch.randn(1, frames, self.features.dim)


class Passes:
    """A subject's work at a length, and the seconds it took so far."""

    def __init__(self, subject: Subject, seconds: int) -> None:
        self.subject, self.seconds, self.device = subject, seconds, subject.device
        self.model, self.x_btf = subject.model, subject.utterance(seconds).to(subject.device)
        self.work = {"forward": self.forward, "train": self.train}
        self.calls: dict[str, int] = {}
        for name, work in self.work.items():
            self.model.train(name == "train")
            self.calls[name] = warmed_up(work, self.device, WARM_UP, SAMPLE_SECONDS)
        self.saved = kept_bytes(self.model, self.x_btf)
        self.peak = peak_bytes(self.train) if self.device.type == "cuda" else None
        self.took: dict[str, list[float]] = {name: [] for name in self.work}

    @torch.inference_mode()
    def forward(self) -> None:
        self.model(self.x_btf)

    def train(self) -> None:
        self.model(self.x_btf).sum().backward()
        self.model.zero_grad()

    def sample(self) -> None:
        for name, work in self.work.items():
            self.model.train(name == "train")
            self.took[name].append(timed(work, self.device, self.calls[name]))

    def point(self) -> Point:
        return Point(
            self.subject.name,
            self.seconds,
            1000 * statistics.median(self.took["forward"]),
            1000 * statistics.median(self.took["train"]),
            self.saved / 1e6,
            None if self.peak is None else self.peak / 1e6,
        )


def symbols(tokenizer: schema.Tokenizer) -> int:
    return LETTERS if tokenizer.kind == "char" else tokenizer.size


def file_bytes(model: nn.Module) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(model, path)
        return path.stat().st_size


def measure(
    experiments: Sequence[Experiment],
    on: Device,
    seconds: Sequence[int] = SECONDS,
    rounds: int = ROUNDS,
) -> Found:
    """Every experiment at every length; `seconds` ascend."""
    device = chosen_device("encoders", on)
    with torch_threads(usable_cores()):
        subjects = [Subject(experiment, device) for experiment in experiments]
        points: list[Point] = []
        with track("bench encoders", total=len(subjects) * (1 + rounds) * sum(seconds)) as bar:
            for length in seconds:
                points += points_at(length, subjects, rounds, bar)
        machine = described(device) | {"precision": "fp32"}
    shown = Shown.of(seconds, [subject.name for subject in subjects])
    return Found(rows(subjects, points, shown), points, machine, shown.note())


def points_at(seconds: int, subjects: Sequence[Subject], rounds: int, bar: Bar) -> list[Point]:
    """All subjects at one length, in turns."""
    all_passes = []
    for subject in subjects:
        all_passes.append(Passes(subject, seconds))
        bar.update(seconds, seconds=seconds)
    for _ in range(rounds):
        for passes in all_passes:
            passes.sample()
            bar.update(seconds)
    return [passes.point() for passes in all_passes]


# --- the table ----------------------------------------------------------------------------------


class Shown(NamedTuple):
    """Which lengths the table is about, and which row a training step is compared with."""

    speed: int
    training: int
    growth: Sequence[int]
    reference: str

    @classmethod
    def of(cls, seconds: Sequence[int], names: Sequence[str]) -> Shown:
        reference = REFERENCE if REFERENCE in names else names[0]
        return cls(seconds[len(seconds) // 2], seconds[-2], seconds[-3:], reference)

    def note(self) -> str:
        growth = ", ".join(map(str, self.growth))
        return (
            f"`gmacs_per_s`: billions of multiply-accumulates per second of audio, in "
            f"{COUNTED_SECONDS} s of it; N log2 N x 5/2 for an FFT of N numbers, half of that if "
            f"they are real; what is done element by element does not count. `rtfx`: seconds of "
            f"audio in a second of inference, at {self.speed} s. `train_of_{self.reference}`: the "
            f"time of a training step over that of `{self.reference}`, at {self.training} s. "
            f"`saved_mb`: activations that wait for the backward pass, at {self.training} s; "
            f"`peak_mb`, where there is a GPU: the most that a training step holds there besides "
            f"weights and input. `..._exp`: the power of the length that it grows by, fitted at "
            f"{growth} s. One utterance at a time."
        )


def rows(subjects: Sequence[Subject], points: Sequence[Point], shown: Shown) -> list[Measured]:
    """A row for each encoder."""
    of = {(point.experiment, point.seconds): point for point in points}
    reference = of[shown.reference, shown.training]
    made: list[Measured] = []
    for subject in subjects:
        at_length = of[subject.name, shown.training]
        row: Measured = {
            "experiment": subject.name,
            "parameters_m": subject.parameters / 1e6,
            "file_mb": subject.file_bytes / 1e6,
            "gmacs_per_s": subject.macs / COUNTED_SECONDS / 1e9,
            "rtfx": of[subject.name, shown.speed].rtfx,
            f"train_of_{shown.reference}": at_length.train_ms / reference.train_ms,
            "saved_mb": at_length.saved_mb,
        }
        if at_length.peak_mb is not None:
            row["peak_mb"] = at_length.peak_mb
        growing = [of[subject.name, seconds] for seconds in shown.growth]
        made.append(row | exponents(growing))
    return made


def exponents(growing: Sequence[Point]) -> Measured:
    return {
        "forward_exp": exponent({p.seconds: p.forward_ms for p in growing}),
        "train_exp": exponent({p.seconds: p.train_ms for p in growing}),
        "saved_exp": exponent({p.seconds: p.saved_mb for p in growing}),
    }


def exponent(values: Mapping[int, float]) -> float:
    """Of the power of the keys that values grow by: least squares of the logarithms."""
    lengths = [math.log(length) for length in values]
    return statistics.linear_regression(lengths, [math.log(v) for v in values.values()]).slope


# --- the figure ---------------------------------------------------------------------------------

STYLES: tuple[dict[str, Any], ...] = (
    {"linestyle": "-", "marker": "o"},
    {"linestyle": "--", "marker": "s"},
    {"linestyle": ":", "marker": "^"},
    {"linestyle": "-.", "marker": "D"},
)


@matplotlib.rc_context(SETTINGS)
def figure(points: Sequence[Point]) -> str:
    """Time of a training step and saved memory against the length, as SVG."""
    lines: dict[str, list[Point]] = {}
    for point in points:
        lines.setdefault(point.experiment, []).append(point)
    picture = new_figure(height=4.2)
    axes = picture.subplots(1, 2, sharex=True)
    panels = {"train_ms": "Training step, ms", "saved_mb": "Saved for the backward pass, MB"}
    for axis, (column, title) in zip(axes, panels.items(), strict=True):
        for i, (name, line) in enumerate(lines.items()):
            seconds = [point.seconds for point in line]
            values = [getattr(point, column) for point in line]
            style = STYLES[i // len(COLOURS) % len(STYLES)]
            axis.plot(
                seconds, values, label=name, color=COLOURS[i % len(COLOURS)], markersize=4, **style
            )
        axis.set(xscale="log", yscale="log", title=title, xlabel="seconds of audio")
        axis.set_xticks(seconds, [str(length) for length in seconds])
        axis.xaxis.minorticks_off()
    axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return to_svg(picture, "cost of encoders against the length of utterances")
