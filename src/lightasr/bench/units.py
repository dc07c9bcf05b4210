"""What a training step of each row of `recurrent_units` takes, beside that of its `lstm`.

A step is a whole one, on the scale's own batches: frontend, encoder, loss, gradients, optimiser.
All rows are measured in turns. From a unit's rows the width follows at which a step would take as
long as `lstm`'s; the study's `_timed` rows have that width.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lightasr import schema
from lightasr.bench.training import finished_inputs
from lightasr.cost.timing import Measured
from lightasr.plan import Plan
from lightasr.progress import track
from lightasr.train.loop import Trainer

STUDY, LSTM = "recurrent_units", "lstm"
TITLE = "Recurrent units: a training step beside that of `lstm`"
ROUNDS = 9
WARM_UP = 2  # compiles kernels and fills caches


class Subject:
    """A row of the study: its trainer, and the seconds that its steps took."""

    def __init__(self, config: Mapping[str, Any], inputs: dict[str, Path], work: Path) -> None:
        sliced = schema.TrainSlice.model_validate_json(json.dumps(config))
        self.encoder = dict(config["model"]["encoder"])
        self.trainer = Trainer(sliced, inputs, work)
        self.parameters = sum(p.numel() for p in self.trainer.model.parameters())
        self.planned = self.trainer.corpus.plan(0, self.trainer.team)
        self.seconds: list[float] = []

    def step(self, number: int) -> float:
        """Seconds of a step, without those of reading its batch."""
        corpus, step = self.trainer.corpus, self.planned[number % len(self.planned)]
        batches = list(corpus.stream(step.parts))
        started = time.perf_counter()
        self.trainer.train_step(batches, step)
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started


def rows(plan: Plan) -> list[Measured]:
    """A row for each of the study's experiments."""
    with tempfile.TemporaryDirectory() as work:
        subjects = make_subjects(plan, Path(work))
        total = len(subjects) * (WARM_UP + ROUNDS)
        with track("bench units", total=total) as bar:
            for subject in subjects.values():
                for number in range(WARM_UP):
                    subject.step(number)
                    bar.update()
            for number in range(ROUNDS):
                for subject in subjects.values():
                    subject.seconds.append(subject.step(number))
                    bar.update()
    # Round by round, since rounds differ in their batches.
    lstm = subjects[LSTM].seconds
    times = {
        name: statistics.median(a / b for a, b in zip(subject.seconds, lstm, strict=True))
        for name, subject in subjects.items()
    }
    encoders = {name: subject.encoder for name, subject in subjects.items()}
    return [
        {
            "experiment": name,
            "dim": encoder["dim"],
            "parameters": subjects[name].parameters,
            "time_of_lstm": times[name],
            "dim_of_equal_time": equal_time(
                [
                    (other["dim"], times[of])
                    for of, other in encoders.items()
                    if other["unit"] == encoder["unit"]
                ]
            ),
        }
        for name, encoder in encoders.items()
    ]


def make_subjects(plan: Plan, work: Path) -> dict[str, Subject]:
    subjects = {}
    for experiment in plan.experiments:
        job = experiment.runs[0].train
        subjects[experiment.name] = Subject(job.config, finished_inputs(plan, job, "units"), work)
    return subjects


def equal_time(measured: Sequence[tuple[int, float]]) -> int | None:
    """The width at which a step takes as long as `lstm`'s; None where widths do not tell.

    Time is taken to be a power of the width, from the nearest widths on either side of it if there
    are such, else from the two nearest.
    """
    if len(measured) < 2:
        return None
    nearest = sorted(measured, key=lambda pair: abs(math.log(pair[1])))
    sides = [pair for pair in nearest if pair[1] < 1][:1] + [p for p in nearest if p[1] >= 1][:1]
    (low, below), (high, above) = sorted(sides if len(sides) == 2 else nearest[:2])
    if low == high or below >= above:
        return None
    share = -math.log(below) / math.log(above / below)
    return round(low * (high / low) ** share)
