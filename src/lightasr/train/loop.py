"""Stage `train`: the training loop, from packed features to the weights that did best on dev."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
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
from lightasr.data.batches import (
    Batch,
    FeatureStore,
    Utterance,
    deal,
    plan_epoch,
    read_utterances,
)
from lightasr.errors import LightasrError, RetryError
from lightasr.models.asr import AcousticModel, save_model
from lightasr.models.init import init_xavier
from lightasr.objectives.ctc import ctc_loss
from lightasr.plan import digest
from lightasr.progress import say, track
from lightasr.text.tokenizers import load_tokenizer
from lightasr.threads import usable_cores
from lightasr.train import checkpoint
from lightasr.train.augment import SpecMasks
from lightasr.train.curves import write_curves
from lightasr.train.distributed import Team
from lightasr.train.guard import Guard, naming_memory
from lightasr.train.precision import Precision
from lightasr.train.schedule import learning_rate, make_optimizer
from lightasr.train.validate import DevResult, validate

SAVE_EVERY_SECONDS = 600.0
COLLECTIVE_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Step:
    """One update of the weights: this process's parts of its batch, and the size of the whole."""

    parts: list[list[int]]
    symbols: int
    done: float
    """Share of the training that is done after it."""


@dataclass
class Progress:
    """Where a training stands; with weights, optimizer and random states, all of it."""

    epoch: int = 0
    position: int = 0  # steps of this epoch that are done
    step: int = 0
    seconds: float = 0.0  # of training, over all attempts
    data_seconds: float = 0.0  # of these, waiting for the next batch
    audio_seconds: float = 0.0
    symbols: int = 0
    energy_joules: float | None = 0.0
    loss_sum: float = 0.0  # over this epoch
    norm_sum: float = 0.0
    counted: int = 0  # steps of this epoch that changed the weights
    skipped: int = 0  # steps of the whole training that did not
    scales: list[list[float]] = field(default_factory=list)  # step, new loss scale
    best_wer: float = float("inf")
    best_epoch: int = 0
    curves: list[dict[str, float]] = field(default_factory=list)


def run(
    config: schema.TrainSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """`model.safetensors`, `tokens.txt` and `curves.csv`; of several processes rank 0 writes."""
    team = Team(COLLECTIVE_TIMEOUT_SECONDS)
    try:
        trainer = Trainer(config, inputs, work, team)
        with stopping_on_signals(trainer):
            trainer.fit()
        selected, result = trainer.select()
        if team.leads:
            trainer.write(out)
        return {**trainer.summary(), "selected": selected, **asdict(result)}
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
        config: schema.TrainSlice,
        inputs: dict[str, Path],
        work: Path,
        team: Team | None = None,
    ) -> None:
        self.config, self.work, self.title = config, work, f"train {work.name}"
        self.team = team or Team(COLLECTIVE_TIMEOUT_SECONDS)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(usable_cores())
        self.identity = digest(
            [config.model_dump(mode="json"), {name: path.name for name, path in inputs.items()}]
        )
        random.seed(config.train.seed)
        np.random.seed(config.train.seed)  # noqa: NPY002 - libraries draw from the global state
        torch.manual_seed(config.train.seed)

        self.tokenizer = load_tokenizer(inputs["tokenizer"])
        dev_name = f"features/{config.dev}"
        training = [path for name, path in inputs.items() if name not in {"tokenizer", dev_name}]
        utterances = read_utterances(training, self.tokenizer)
        dev = read_utterances([inputs[dev_name]], self.tokenizer)
        every = max(1, -(-len(dev) // config.train.validate_utterances))
        self.dev = dev[::every]
        self.store = FeatureStore()

        self.model = AcousticModel(
            config.model, config.features.mels, len(self.tokenizer.symbols)
        ).to(self.device)
        if config.train.init == "xavier":
            init_xavier(self.model)
        self.utterances, self.set_aside = self.trainable(utterances)
        if config.model.normalize == "global":
            self.measure_features()
        self.parallel: nn.Module = self.model
        if self.team.size > 1:
            # Buffers are equal by construction: the statistics are summed over all processes.
            self.parallel = DistributedDataParallel(self.model, broadcast_buffers=False)
            torch.manual_seed(config.train.seed + 1_000_003 * self.team.rank)  # dropout, masks
        self.augment = SpecMasks(config.train.augment)
        self.precision = Precision(config.train.precision, self.device)
        self.optimizer = make_optimizer(config.train, self.model)
        self.guard = Guard(self.title, config.train, work)
        self.meter = Meter(self.device)
        self.at = Progress()
        self.stopped_by = ""
        self.saved = time.monotonic()
        self.save_is_due = False

    def trainable(self, utterances: list[Utterance]) -> tuple[list[Utterance], dict[str, int]]:
        """Utterances that fit, and how many were set aside for which reason."""
        frames = torch.tensor([utterance.frames for utterance in utterances])
        outputs = self.model.output_lengths(frames).tolist()
        longest = self.config.train.max_seconds
        aside = {"longer than train.max_seconds": 0, "too short for their transcript": 0}
        kept = []
        for utterance, output in zip(utterances, outputs, strict=True):
            if utterance.seconds > longest:
                aside["longer than train.max_seconds"] += 1
            elif output < utterance.least_outputs:
                aside["too short for their transcript"] += 1
            else:
                kept.append(utterance)
        for reason, count in aside.items():
            if count:
                self.say(f"{count} of {len(utterances)} utterances set aside: {reason}")
        if not kept:
            raise LightasrError(
                f"{self.title}: no utterance of {len(utterances)} can be trained on"
            )
        return kept, {reason: count for reason, count in aside.items() if count}

    def measure_features(self) -> None:
        """Mean and standard deviation of each feature over (at most 2000) training utterances."""
        every = -(-len(self.utterances) // 2000)
        sample = [self.store.load(utterance) for utterance in self.utterances[::every]]
        self.model.normalizer.measure(sample)

    def say(self, text: str) -> None:
        if self.team.leads:
            say(f"{self.title}  {text}")

    # --- the loop ---

    def fit(self, stop_at: int | None = None) -> None:
        """Train to the end, or save and stop after step `stop_at` or on a signal."""
        self.resume()
        epochs = self.config.train.epochs
        if self.at.epoch < epochs:
            self.rehearse()
        with track(self.title, total=epochs, quiet=not self.team.leads) as bar, self.team.waiting():
            bar.start_at(self.at.epoch)
            for epoch in range(self.at.epoch, epochs):
                steps = self.plan(epoch)
                parts = [part for step in steps[self.at.position :] for part in step.parts]
                batches = self.store.stream(self.utterances, parts)
                clock = time.monotonic()
                for step in steps[self.at.position :]:
                    ready = list(islice(batches, len(step.parts)))
                    self.at.data_seconds += time.monotonic() - clock
                    loss = self.train_step(ready, step)
                    self.at.seconds += time.monotonic() - clock
                    clock = time.monotonic()
                    bar.update(1 / len(steps), epoch=f"{epoch + 1}/{epochs}", loss=loss)
                    self.save_when_due(stop_at)
                row = self.finish_epoch()
                bar.update(0, line=True, loss=row["train_loss"], WER=f"{row['dev_wer']:.1%}")

    def plan(self, epoch: int) -> list[Step]:
        """An epoch's steps: every process plans the same ones, and takes its own parts of each."""
        config, team = self.config.train, self.team
        seconds = [utterance.seconds for utterance in self.utterances]
        batches = plan_epoch(seconds, config.batch_seconds, config.seed, epoch, config.order)
        return [
            Step(
                parts=deal(batch, seconds, team.size * config.accumulate)[team.rank :: team.size],
                symbols=sum(len(self.utterances[i].tokens) for i in batch),
                done=(epoch + (number + 1) / len(batches)) / config.epochs,
            )
            for number, batch in enumerate(batches)
        ]

    def train_step(self, batches: list[Batch], step: Step) -> float:
        """One update of the weights; returns the loss in nats per symbol."""
        at, config = self.at, self.config.train
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step.done)
        self.team.note_step(at.step + 1)
        local = self.accumulate(batches, step.symbols)
        norm_tensor = self.precision.clipped_norm(self.optimizer, self.model, config.clip)
        audio = sum(batch.seconds for batch in batches)
        # All processes stop or save together, or none: what one wants is told to all.
        due = self.team.leads and time.monotonic() - self.saved > SAVE_EVERY_SECONDS
        told = torch.tensor([local, audio, bool(self.stopped_by), due], dtype=torch.float64)
        loss, audio, stops, due = self.team.sum(told.to(self.device)).tolist()
        self.save_is_due = bool(due)
        if stops and not self.stopped_by:
            self.stopped_by = "a signal to another process"
        self.update(batches, loss, norm_tensor.item())
        at.step, at.position = at.step + 1, at.position + 1
        at.audio_seconds, at.symbols = at.audio_seconds + audio, at.symbols + step.symbols
        return loss

    def accumulate(self, batches: list[Batch], symbols: int) -> float:
        """Gradients of a step's parts; the processes exchange them with the last one only."""
        self.model.train()
        self.optimizer.zero_grad()
        total = 0.0
        for batch in batches:
            with (
                self.exchanging(batch is batches[-1]),
                naming_memory(self.title, batch, self.config.train),
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

    def loss(self, batch: Batch) -> Tensor:
        """Nats of a batch's transcripts, summed."""
        with self.precision.autocast():
            logp_btv, lengths_b = self.parallel(
                batch.features_btf.to(self.device), batch.lengths_b.to(self.device), self.augment
            )
        if not batch.utterances:
            return logp_btv.sum() * 0
        return ctc_loss(
            logp_btv,
            lengths_b,
            batch.targets_bu.to(self.device),
            batch.target_lengths_b.to(self.device),
        )

    def update(self, batches: list[Batch], loss: float, norm: float) -> None:
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
        steps = self.plan(0)
        costs = [max(self.cost(part) for part in step.parts) for step in steps]
        worst = steps[int(np.argmax(np.max(self.team.gather(costs), axis=0)))]
        random_state = checkpoint.random_state()
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        self.accumulate([self.store.read(self.utterances, p) for p in worst.parts], worst.symbols)
        self.optimizer.zero_grad()
        for name, buffer in self.model.named_buffers():
            buffer.copy_(buffers[name])
        checkpoint.restore_random_state(random_state)
        memory = peak_memory_mb(self.device)
        self.say(f"worst batch {max(costs):.0f} s of audio, peak memory {memory:.0f} MB")

    def cost(self, part: list[int]) -> float:
        """Seconds of audio with padding."""
        return len(part) * max((self.utterances[i].seconds for i in part), default=0.0)

    def save_when_due(self, stop_at: int | None) -> None:
        """Save every ten minutes; save and stop where that is asked for."""
        if self.stopped_by or self.at.step == stop_at:
            self.save()
            why = self.stopped_by or f"step {stop_at}"
            raise RetryError(f"{self.title}: saved at step {self.at.step} ({why})")
        if self.save_is_due:
            self.save()

    def finish_epoch(self) -> dict[str, float]:
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
        if result.dev_wer < at.best_wer:
            at.best_wer, at.best_epoch = result.dev_wer, at.epoch
            self.keep("best.pt", weights)
        if at.epoch > self.config.train.epochs - self.config.train.average:
            self.keep(f"epoch-{at.epoch}.pt", weights)
        self.save()
        self.guard.check_epoch([row["train_loss"] for row in at.curves])
        return row

    def validate(self) -> DevResult:
        config = self.config.train
        with self.precision.autocast():
            return validate(
                self.model, self.dev, self.store, self.tokenizer, config.batch_seconds, self.device
            )

    def select(self) -> tuple[str, DevResult]:
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
            if averaged.dev_wer <= result.dev_wer:
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
        self.account()
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

    def account(self) -> None:
        """Add the energy since the last time, over all processes."""
        used = self.team.gather(self.meter.since_last())
        if self.at.energy_joules is None or any(joules is None for joules in used):
            self.at.energy_joules = None
        else:
            self.at.energy_joules += sum(used)

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
        save_model(self.model, out / "model.safetensors")
        self.tokenizer.save(out)
        write_curves(self.at.curves, out)

    def summary(self) -> dict[str, Any]:
        """What `run.json` says of a training, over all attempts."""
        at = self.at
        on_gpu = self.device.type == "cuda"
        return {
            "params": self.model.parameter_count(),
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "processes": self.team.size,
            "precision": self.config.train.precision,
            "epochs": self.config.train.epochs,
            "steps": at.step,
            "skipped_steps": at.skipped,
            "loss_scale_changes": at.scales,
            "training_seconds": at.seconds,
            "gpu_seconds": at.seconds * self.team.size if on_gpu else None,
            "epoch_seconds": at.seconds / self.config.train.epochs,
            "data_wait_share": at.data_seconds / at.seconds,
            "audio_seconds_per_second": at.audio_seconds / at.seconds,
            "symbols_per_second": at.symbols / at.seconds,
            "peak_memory_mb": peak_memory_mb(self.device),
            "energy_joules": at.energy_joules,
            "energy_source": self.meter.source,
            "set_aside": self.set_aside,
        }
