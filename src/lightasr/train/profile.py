"""`lightasr train --profile-steps N`: where the time of a training step goes."""

from __future__ import annotations

import tempfile
import time
from itertools import islice
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from lightasr import schema
from lightasr.invalid import Layer, check
from lightasr.jobs import Job
from lightasr.plan import Plan
from lightasr.train.loop import Trainer

WARM_UP_STEPS = 3
SECTIONS = ("data", "forward", "loss", "backward", "optimizer")


class Stopwatch:
    """Seconds of named sections; waits for the GPU at each end."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(SECTIONS, 0.0)
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now


def profile(plan: Plan, job: Job, steps: int) -> str:
    """Time `steps` steps of a training section by section; the trace goes to `logs/`."""
    config = check(schema.TrainSlice, job.config, [Layer(job.dir, None, job.config)])
    inputs = {name: plan.project / upstream.dir for name, upstream in job.inputs.items()}
    trace = plan.project / "logs" / "profile" / f"{job.id}.json"
    trace.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        trainer = Trainer(config, inputs, Path(work))
        timed_steps(trainer, WARM_UP_STEPS)
        watch = timed_steps(trainer, steps)
        activities = [ProfilerActivity.CPU]
        if trainer.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        with torch_profile(activities=activities, acc_events=True) as recorded:
            timed_steps(trainer, min(steps, 3))
        recorded.export_chrome_trace(str(trace))
    whole = sum(watch.seconds.values())
    lines = [
        f"{name:<10} {1000 * seconds / steps:8.1f} ms {100 * seconds / whole:5.1f} %"
        for name, seconds in watch.seconds.items()
    ]
    return "\n".join(
        [
            f"{job.id}: {steps} steps on {trainer.device}, {1000 * whole / steps:.1f} ms each",
            *lines,
            f"trace: {trace} (open it at chrome://tracing)",
        ]
    )


def timed_steps(trainer: Trainer, steps: int) -> Stopwatch:
    """Train some steps of the first epoch (again and again), and time their sections."""
    planned = trainer.corpus.plan(0, trainer.team)
    planned = (planned * -(-steps // len(planned)))[:steps]
    batches = trainer.corpus.stream([part for step in planned for part in step.parts])
    trainer.model.train()
    watch = Stopwatch(trainer.device)
    for step in planned:
        trainer.optimizer.zero_grad()
        with record_function("data"):
            parts = list(islice(batches, len(step.parts)))
        watch.lap("data")
        for batch in parts:
            with record_function("forward"), trainer.precision.autocast():
                outputs = trainer.task.forward(trainer.model, batch)
            watch.lap("forward")
            with record_function("loss"):
                loss = trainer.task.loss(outputs, batch) / step.symbols
            watch.lap("loss")
            with record_function("backward"):
                trainer.precision.backward(loss)
            watch.lap("backward")
        with record_function("optimizer"):
            clip = trainer.config.train.clip
            trainer.precision.clipped_norm(trainer.optimizer, trainer.model, clip)
            trainer.precision.step(trainer.optimizer)
        watch.lap("optimizer")
    return watch
