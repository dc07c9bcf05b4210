"""The training loop, to the weights that did best on dev; stage `train` runs it for recognition."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightasr import schema
from lightasr.cost.measure import Meter, peak_memory_mb
from lightasr.errors import RetryError
from lightasr.jobs import digest
from lightasr.models.blocks import extremes
from lightasr.progress import say, track
from lightasr.threads import usable_cores
from lightasr.train import checkpoint
from lightasr.train.curves import write_curves
from lightasr.train.distributed import Team
from lightasr.train.guard import Guard, naming_memory
from lightasr.train.heap import Heap, allowed_mb
from lightasr.train.precision import Precision
from lightasr.train.progress import Progress
from lightasr.train.recognition import Recognition
from lightasr.train.schedule import learning_rate, leave_for_later, make_optimizer
from lightasr.train.task import AnyBatch, AnyResult, Step, Task

SAVE_EVERY_SECONDS = 600.0
COLLECTIVE_TIMEOUT_SECONDS = 600.0
LOOP = 3  # raised where what a checkpoint holds is no longer what it was

Config = schema.TrainSlice | schema.PretrainSlice | schema.NeuralLMSlice


def run(
    config: Config,
    inputs: dict[str, Path],
    out: Path,
    work: Path,
    task: type[Task[Any]] = Recognition,
) -> dict[str, Any]:
    """`model.safetensors`, its symbols and `curves.csv`; of several processes rank 0 writes."""
    team = Team(COLLECTIVE_TIMEOUT_SECONDS)
    try:
        trainer = Trainer(config, inputs, work, team, task)
        with stopping_on_signals(trainer):
            trainer.fit()
        selected, result = trainer.select()
        if not team.leads:
            return {}
        trainer.write(out)
        findings = trainer.task.findings()
        return {**trainer.summary(), "selected": selected, **asdict(result), **findings}
    finally:
        team.close()


@contextmanager
def stopping_on_signals(trainer: Trainer) -> Iterator[None]:
    """SIGTERM and SIGUSR1 (a cluster's time limit) end the training after the step it is in."""

    def stop(number: int, frame: FrameType | None) -> None:
        trainer.stopped_by = signal.Signals(number).name

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Trainer:
    """One training run; `fit` goes on from the last checkpoint in `work`."""

    def __init__(
        self,
        config: Config,
        inputs: dict[str, Path],
        work: Path,
        team: Team | None = None,
        task: type[Task[Any]] = Recognition,
    ) -> None:
        self.config, self.work, self.title = config, work, f"{task.stage} {work.name}"
        self.team = team or Team(COLLECTIVE_TIMEOUT_SECONDS)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(usable_cores())
        self.identity = digest(
            [
                config.model_dump(mode="json"),
                {name: path.name for name, path in inputs.items()},
                [LOOP, *sorted(asdict(Progress()))],  # what this version of the loop can go on from
            ]
        )
        random.seed(config.train.seed)
        np.random.seed(config.train.seed)  # noqa: NPY002 - libraries draw from the global state
        torch.manual_seed(config.train.seed)

        self.task = task(config, inputs, self.title, self.device)
        self.corpus, self.model = self.task.corpus, self.task.model
        for reason, count in self.corpus.set_aside.items():
            self.say(f"{count} {self.corpus.examples} set aside: {reason}")
        self.parallel: nn.Module = self.model
        if self.team.size > 1:
            # Buffers are equal by construction: the statistics are summed over all processes.
            self.parallel = DistributedDataParallel(self.model, broadcast_buffers=False)
            torch.manual_seed(config.train.seed + 1_000_003 * self.team.rank)  # dropout, masks
        self.precision = Precision(config.train.precision, self.device)
        self.optimizer = make_optimizer(config.train, self.model, self.task.pace)
        self.guard = Guard(self.title, self.task, config.train, work)
        self.meter = Meter(self.device)
        self.heap = Heap(allowed_mb() if self.device.type == "cpu" else None)
        self.at = Progress()
        self.stopped_by = ""  # this process, after the step it is in; all agree in the next sum
        self.saved = time.monotonic()
        self.save_is_due = self.all_stop = False

    def say(self, text: str) -> None:
        if self.team.leads:
            say(f"{self.title}  {text}")

    # --- the loop ---

    def fit(self, stop_at: int | None = None) -> None:
        """Train to the end, or save and stop after step `stop_at` or on a signal."""
        self.resume()
        epochs = self.config.train.epochs
        with self.team.waiting():
            if self.at.epoch < epochs:
                self.rehearse()
        with track(self.title, total=epochs, quiet=not self.team.leads) as bar, self.team.waiting():
            bar.start_at(self.at.epoch)
            for epoch in range(self.at.epoch, epochs):
                steps = self.corpus.plan(epoch, self.team)
                parts = [part for step in steps[self.at.position :] for part in step.parts]
                batches = self.corpus.stream(parts)
                clock = time.monotonic()
                for step in steps[self.at.position :]:
                    ready = list(islice(batches, len(step.parts)))
                    self.at.data_seconds += time.monotonic() - clock
                    loss = self.train_step(ready, step)
                    self.heap.tidy()
                    self.at.seconds += time.monotonic() - clock
                    clock = time.monotonic()
                    bar.update(1 / len(steps), epoch=f"{epoch + 1}/{epochs}", loss=loss)
                    self.save_when_due(stop_at)
                loss, result = self.finish_epoch()
                bar.update(0, line=True, loss=loss, **result.shown)

    def train_step(self, batches: list[AnyBatch], step: Step) -> float:
        """One update of the weights; returns the loss in nats per symbol."""
        at, config = self.at, self.config.train
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(config, step.done)
        self.team.note_step(at.step + 1)
        self.task.begin_step(at.step, step.done)
        local = self.accumulate(batches, step.symbols)
        leave_for_later(self.optimizer, at.step)
        norm_tensor = self.precision.clipped_norm(self.optimizer, self.model, config.clip)
        audio = sum(batch.seconds for batch in batches)
        # All processes stop or save together, or none: what one wants is told to all.
        due = self.team.leads and time.monotonic() - self.saved > SAVE_EVERY_SECONDS
        told = torch.tensor([local, audio, bool(self.stopped_by), due], dtype=torch.float64)
        loss, audio, stops, due = self.team.sum(told.to(self.device)).tolist()
        self.save_is_due, self.all_stop = bool(due), bool(stops)
        self.update(batches, loss, norm_tensor.item())
        at.step, at.position = at.step + 1, at.position + 1
        at.audio_seconds, at.symbols = at.audio_seconds + audio, at.symbols + step.symbols
        return loss

    def accumulate(self, batches: list[AnyBatch], symbols: float) -> float:
        """Gradients of a step's parts; the processes exchange them with the last one only."""
        self.model.train()
        self.optimizer.zero_grad()
        total = 0.0
        for batch in batches:
            with (
                self.exchanging(batch is batches[-1]),
                naming_memory(self.title, self.task, batch, self.config.train.accumulate),
            ):
                loss = self.loss(batch) / symbols
                # DistributedDataParallel averages; the whole batch's loss is a sum.
                self.precision.backward(loss * self.team.size)
            total += loss.item()
        return total

    def exchanging(self, last: bool) -> AbstractContextManager[Any]:
        if isinstance(self.parallel, DistributedDataParallel) and not last:
            return self.parallel.no_sync()
        return nullcontext()

    def loss(self, batch: AnyBatch) -> Tensor:
        """Nats of a batch's symbols, summed."""
        with self.precision.autocast():
            outputs = self.task.forward(self.parallel, batch)
        return self.task.loss(outputs, batch)

    def update(self, batches: list[AnyBatch], loss: float, norm: float) -> None:
        """Step, unless loss or gradient are no numbers; fp16 lowers its scale first."""
        at, scale = self.at, self.precision.scale
        sound = np.isfinite(loss) and np.isfinite(norm)
        if sound or self.precision.scaling:
            self.precision.step(self.optimizer)
        if self.precision.scale != scale:
            at.scales.append([at.step + 1, self.precision.scale])
        if sound:
            at.loss_sum, at.norm_sum, at.counted = (
                at.loss_sum + loss,
                at.norm_sum + norm,
                at.counted + 1,
            )
            self.guard.went_well()
            return
        at.skipped += 1
        if not (np.isfinite(loss) and self.precision.can_lower):
            self.guard.skipped(batches[0], at.step, loss, norm)

    def rehearse(self) -> None:
        """The worst planned batch, forward and backward, before anything counts.

        If memory does not suffice, it shows now and not after hours. It leaves no trace.
        """
        steps = self.corpus.plan(0, self.team)
        costs = [max(self.corpus.cost(part) for part in step.parts) for step in steps]
        worst = steps[int(np.argmax(np.max(self.team.gather(costs), axis=0)))]
        random_state = checkpoint.random_state()
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        batches = [self.corpus.read(part) for part in worst.parts]
        for _ in extremes(self.model):
            self.accumulate(batches, worst.symbols)
        self.optimizer.zero_grad()
        for name, buffer in self.model.named_buffers():
            buffer.copy_(buffers[name])
        checkpoint.restore_random_state(random_state)
        memory = peak_memory_mb(self.device)
        worst_cost = f"{max(costs):.0f} {self.corpus.costs}"
        self.say(f"worst batch {worst_cost}, peak memory {memory:.0f} MB")

    def save_when_due(self, stop_at: int | None) -> None:
        """Save every ten minutes; save and stop where that is asked for."""
        if self.all_stop or self.at.step == stop_at:
            self.save()
            why = self.stopped_by or ("a signal" if self.all_stop else f"step {stop_at}")
            raise RetryError(f"{self.title}: saved at step {self.at.step} ({why})")
        if self.save_is_due:
            self.save()

    def finish_epoch(self) -> tuple[float, AnyResult]:
        """Validate, keep what may be selected in the end, and save."""
        at = self.at
        result = self.validate()
        counted = max(at.counted, 1)
        row = {
            "epoch": at.epoch + 1,
            "step": at.step,
            "seconds": round(at.seconds, 3),
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": at.loss_sum / counted if at.counted else float("nan"),
            "grad_norm": at.norm_sum / counted,
            "loss_scale": self.precision.scale,
            **asdict(result),
        }
        at.curves.append(row)
        at.epoch, at.position, at.counted, at.loss_sum, at.norm_sum = at.epoch + 1, 0, 0, 0.0, 0.0
        weights = {"model": self.model.state_dict()}
        if result.rank < at.best:
            at.best, at.best_epoch = result.rank, at.epoch
            self.keep("best.pt", weights)
        if at.epoch > self.config.train.epochs - self.config.train.average:
            self.keep(f"epoch-{at.epoch}.pt", weights)
        self.save()
        self.guard.check_epoch([row["train_loss"] for row in at.curves])
        return row["train_loss"], result

    def validate(self) -> AnyResult:
        """At the end of an epoch, or of all."""
        epochs = self.config.train.epochs
        self.task.done = min(1.0, (self.at.epoch + 1) / epochs)
        with self.precision.autocast():
            return self.task.validate()

    def select(self) -> tuple[str, AnyResult]:
        """Load the best epoch's weights or the mean of the last ones', whichever dev prefers."""
        best = checkpoint.load(self.work / "best.pt")["model"]
        self.model.load_state_dict(best)
        result = self.validate()
        epochs = self.config.train.epochs
        last = range(max(0, epochs - self.config.train.average) + 1, epochs + 1)
        if len(last) > 1:
            states = [checkpoint.load(self.work / f"epoch-{n}.pt")["model"] for n in last]
            self.model.load_state_dict(
                {name: torch.stack([state[name] for state in states]).mean(0) for name in best}
            )
            averaged = self.validate()
            if averaged.rank <= result.rank:
                return f"mean of epochs {last[0]} to {last[-1]}", averaged
            self.model.load_state_dict(best)
        return f"epoch {self.at.best_epoch}", result

    # --- what is left behind ---

    def keep(self, name: str, state: dict[str, Any]) -> None:
        """A file in the work directory; of several processes rank 0 writes."""
        if self.team.leads:
            checkpoint.save(self.work / name, state)

    def save(self) -> None:
        """All that going on needs, so that going on gives the very same weights."""
        self.at.add_energy(self.team.gather(self.meter.since_last()))
        self.at.peak_memory_mb = max(self.at.peak_memory_mb, peak_memory_mb(self.device))
        state = {
            "identity": self.identity,
            "progress": asdict(self.at),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "random": self.team.gather(checkpoint.random_state()),
        }
        if self.team.leads:
            checkpoint.save_keeping_previous(self.work / "last.pt", state)
        self.team.gather(None)  # nobody stops before the file is there
        self.saved = time.monotonic()

    def resume(self) -> None:
        state = checkpoint.load_last(self.work / "last.pt", self.identity)
        if state is None:
            return
        self.at = Progress(**state["progress"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        if len(state["random"]) == self.team.size:
            checkpoint.restore_random_state(state["random"][self.team.rank])
        else:
            self.say(
                f"was saved by {len(state['random'])} processes, goes on with {self.team.size}: "
                "dropout and masks are drawn anew"
            )
            torch.manual_seed(self.config.train.seed + 1_000_003 * (self.at.step + self.team.rank))
        self.say(f"goes on after step {self.at.step}, epoch {self.at.epoch + 1}")

    def write(self, out: Path) -> None:
        self.task.write(out)
        write_curves(self.at.curves, out)

    def summary(self) -> dict[str, Any]:
        """What `run.json` says of a training, over all attempts."""
        on_gpu = self.device.type == "cuda"
        return {
            "params": sum(parameter.numel() for parameter in self.model.parameters()),
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "processes": self.team.size,
            "precision": self.config.train.precision,
            "epochs": self.config.train.epochs,
            **self.at.measured(),
            "gpu_seconds": self.at.seconds * self.team.size if on_gpu else None,
            "energy_source": self.meter.source,
            "set_aside": self.corpus.set_aside,
        }
