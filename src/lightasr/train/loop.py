"""Stage `train`: the training loop, from packed features to the weights that did best on dev."""

from __future__ import annotations

import csv
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightasr import schema
from lightasr.data.batches import Batch, FeatureStore, Utterance, plan_epoch, read_utterances
from lightasr.errors import LightasrError, RetryError
from lightasr.models.asr import AcousticModel, save_model
from lightasr.objectives.ctc import ctc_loss
from lightasr.plan import digest
from lightasr.progress import say, track
from lightasr.text.tokenizers import load_tokenizer
from lightasr.threads import usable_cores
from lightasr.train import checkpoint
from lightasr.train.augment import SpecMasks
from lightasr.train.schedule import learning_rate, make_optimizer
from lightasr.train.validate import DevResult, validate

SAVE_EVERY_SECONDS = 600.0
CURVE_COLUMNS = (
    ["epoch", "step", "seconds", "lr", "train_loss", "grad_norm", "dev_loss", "dev_wer", "dev_cer"]
)  # fmt: skip


@dataclass
class Progress:
    """Where a training stands; with weights, optimizer and random states, all of it."""

    epoch: int = 0
    position: int = 0  # batches of this epoch that are done
    step: int = 0
    seconds: float = 0.0  # of training, over all attempts
    audio_seconds: float = 0.0
    loss_sum: float = 0.0  # over this epoch
    norm_sum: float = 0.0
    best_wer: float = float("inf")
    best_epoch: int = 0
    curves: list[dict[str, float]] = field(default_factory=list)


def run(
    config: schema.TrainSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """`model.safetensors`, `tokens.txt` and `curves.csv`."""
    trainer = Trainer(config, inputs, work)
    with stopping_on_signals(trainer):
        trainer.fit()
    selected, result = trainer.select()
    save_model(trainer.model, out / "model.safetensors")
    trainer.tokenizer.save(out)
    with (out / "curves.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, CURVE_COLUMNS)
        writer.writeheader()
        writer.writerows(trainer.at.curves)
    return {
        "params": trainer.model.parameter_count(),
        "device": trainer.device_name(),
        "gpu_seconds": trainer.at.seconds if trainer.device.type == "cuda" else None,
        "epochs": config.train.epochs,
        "steps": trainer.at.step,
        "training_seconds": trainer.at.seconds,
        "epoch_seconds": trainer.at.seconds / config.train.epochs,
        "audio_seconds_per_second": trainer.at.audio_seconds / trainer.at.seconds,
        "set_aside": trainer.set_aside,
        "selected": selected,
        **asdict(result),
    }


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

    def __init__(self, config: schema.TrainSlice, inputs: dict[str, Path], work: Path) -> None:
        self.config, self.work, self.title = config, work, f"train {work.name}"
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
        self.utterances, self.set_aside = self.trainable(utterances)
        self.augment = SpecMasks(config.train.augment)
        self.optimizer = make_optimizer(config.train, self.model)
        self.at = Progress()
        self.stopped_by = ""
        self.saved = time.monotonic()
        if config.model.normalize == "global":
            self.measure_features()

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
                say(f"{self.title}  {count} of {len(utterances)} utterances set aside: {reason}")
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

    # --- the loop ---

    def fit(self, stop_at: int | None = None) -> None:
        """Train to the end, or save and stop after step `stop_at` or on a signal."""
        self.resume()
        config = self.config.train
        seconds = [utterance.seconds for utterance in self.utterances]
        with track(self.title, total=config.epochs) as bar:
            bar.start_at(self.at.epoch)
            for epoch in range(self.at.epoch, config.epochs):
                batches = plan_epoch(seconds, config.batch_seconds, config.seed, epoch)
                clock = time.monotonic()
                for batch in self.store.stream(self.utterances, batches[self.at.position :]):
                    loss = self.train_step(batch, len(batches))
                    self.at.seconds += time.monotonic() - clock
                    clock = time.monotonic()
                    bar.update(1 / len(batches), epoch=f"{epoch + 1}/{config.epochs}", loss=loss)
                    if self.stopped_by or self.at.step == stop_at:
                        self.save()
                        why = self.stopped_by or f"step {stop_at}"
                        raise RetryError(f"{self.title}: saved at step {self.at.step} ({why})")
                    if time.monotonic() - self.saved > SAVE_EVERY_SECONDS:
                        self.save()
                row = self.finish_epoch(len(batches))
                bar.update(0, line=True, loss=row["train_loss"], WER=f"{row['dev_wer']:.1%}")

    def train_step(self, batch: Batch, batches: int) -> float:
        """One update of the weights; returns the loss in nats per symbol."""
        at, config = self.at, self.config.train
        done = (at.epoch + (at.position + 1) / batches) / config.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, done)
        self.model.train()
        loss = self.loss(batch, augment=True)
        if not torch.isfinite(loss):
            raise LightasrError(
                f"{self.title}: the loss is {loss.item()} at step {at.step + 1} with utterances "
                f"{', '.join(batch.ids[:5])}: lower train.lr or look at these utterances"
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        at.step, at.position = at.step + 1, at.position + 1
        at.loss_sum, at.norm_sum = at.loss_sum + loss.item(), at.norm_sum + norm.item()
        at.audio_seconds += batch.seconds
        return loss.item()

    def loss(self, batch: Batch, augment: bool) -> Tensor:
        logp_btv, lengths_b = self.model(
            batch.features_btf.to(self.device),
            batch.lengths_b.to(self.device),
            self.augment if augment else None,
        )
        return ctc_loss(
            logp_btv,
            lengths_b,
            batch.targets_bu.to(self.device),
            batch.target_lengths_b.to(self.device),
        )

    def finish_epoch(self, batches: int) -> dict[str, float]:
        """Validate, keep what may be selected in the end, and save."""
        at = self.at
        result = self.validate()
        row = {
            "epoch": at.epoch + 1,
            "step": at.step,
            "seconds": round(at.seconds, 3),
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": at.loss_sum / batches,
            "grad_norm": at.norm_sum / batches,
            **asdict(result),
        }
        at.curves.append(row)
        at.epoch, at.position, at.loss_sum, at.norm_sum = at.epoch + 1, 0, 0.0, 0.0
        weights = {"model": self.model.state_dict()}
        if result.dev_wer < at.best_wer:
            at.best_wer, at.best_epoch = result.dev_wer, at.epoch
            checkpoint.save(self.work / "best.pt", weights)
        first_averaged = self.config.train.epochs - self.config.train.average
        if at.epoch > first_averaged:
            checkpoint.save(self.work / f"epoch-{at.epoch}.pt", weights)
        self.save()
        return row

    def validate(self) -> DevResult:
        config = self.config.train
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

    # --- checkpoints ---

    def save(self) -> None:
        """All that going on needs, so that going on gives the very same weights."""
        state = {
            "identity": self.identity,
            "progress": asdict(self.at),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": checkpoint.random_state(),
        }
        checkpoint.save(self.work / "last.pt", state)
        self.saved = time.monotonic()

    def resume(self) -> None:
        path = self.work / "last.pt"
        if not path.exists():
            return
        state = checkpoint.load(path, self.identity)
        self.at = Progress(**state["progress"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        checkpoint.restore_random_state(state["random"])
        say(f"{self.title}  goes on after step {self.at.step}, epoch {self.at.epoch + 1}")

    def device_name(self) -> str:
        return torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
