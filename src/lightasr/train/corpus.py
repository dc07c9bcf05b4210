"""What a training reads: utterances that fit, the dev part, and the plan of an epoch's steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from lightasr import schema
from lightasr.data.batches import (
    FeatureStore,
    Utterance,
    deal,
    plan_epoch,
    read_held_out,
    read_utterances,
)
from lightasr.errors import LightasrError
from lightasr.models.asr import AcousticModel
from lightasr.text.tokenizers import Tokenizer, load_tokenizer

MEASURED_UTTERANCES = 2000


@dataclass(frozen=True)
class Step:
    """One update of the weights: this process's parts of its batch, and the size of the whole."""

    parts: list[list[int]]
    symbols: int
    done: float
    """Share of the training that is done after it."""


class Member(Protocol):
    """One of the processes that train together."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...


class TrainingCorpus:
    """Training and dev utterances of one run, with the tokenizer that writes them."""

    def __init__(self, config: schema.TrainSlice, inputs: dict[str, Path]) -> None:
        self.config = config.train
        self.tokenizer: Tokenizer = load_tokenizer(inputs["tokenizer"])
        dev_name = f"features/{config.dev}"
        training = [path for name, path in inputs.items() if name not in {"tokenizer", dev_name}]
        self.utterances = read_utterances(training, config.text, self.tokenizer)
        dev = read_held_out(inputs[dev_name], config.text, self.tokenizer)
        self.dev = dev[:: max(1, -(-len(dev) // config.train.validate_utterances))]
        self.set_aside: Counter[str] = Counter()
        self.store = FeatureStore(by_speaker=config.model.normalize == "speaker")

    def set_aside_unfit(self, model: AcousticModel, title: str) -> None:
        """Keep the utterances that can be trained on, and count the others by reason.

        Those of the dev part are all decoded; what has no loss is counted.
        """
        kept: list[Utterance] = []
        for utterance, outputs in zip_outputs(self.utterances, model):
            reason = utterance.unfit(outputs)
            if utterance.seconds > self.config.max_seconds:
                reason = "longer than train.max_seconds"
            if reason is None:
                kept.append(utterance)
            else:
                self.set_aside[reason] += 1
        if not kept:
            raise LightasrError(
                f"{title}: no utterance of {len(self.utterances)} can be trained on: "
                + ", ".join(f"{count} {reason}" for reason, count in self.set_aside.items())
            )
        self.utterances = kept
        unfit = Counter(utterance.unfit(n) for utterance, n in zip_outputs(self.dev, model))
        if not unfit.pop(None, 0):
            raise LightasrError(
                f"{title}: no utterance of {len(self.dev)} of the dev part has a loss: "
                + ", ".join(f"{count} {reason}" for reason, count in unfit.items())
            )
        for reason, count in unfit.items():
            self.set_aside[f"{reason} (dev part, from the loss alone)"] = count

    def sample(self) -> list[Tensor]:
        """Features of training utterances, evenly chosen, to measure mean and variance on."""
        every = -(-len(self.utterances) // MEASURED_UTTERANCES)
        return [self.store.load(utterance) for utterance in self.utterances[::every]]

    def plan(self, epoch: int, member: Member) -> list[Step]:
        """An epoch's steps: every process plans the same ones, and takes its own parts of each."""
        config = self.config
        seconds = [utterance.seconds for utterance in self.utterances]
        symbols = [len(utterance.tokens) for utterance in self.utterances]
        batches = plan_epoch(seconds, config.batch_seconds, config.seed, epoch, config.order)
        parts = member.size * config.accumulate
        return [
            Step(
                parts=deal(batch, seconds, parts)[member.rank :: member.size],
                symbols=sum(symbols[i] for i in batch),
                done=(epoch + (number + 1) / len(batches)) / config.epochs,
            )
            for number, batch in enumerate(batches)
        ]

    def cost(self, part: list[int]) -> float:
        """Seconds of audio in a part of a batch, padding counted."""
        return len(part) * max((self.utterances[i].seconds for i in part), default=0.0)


def zip_outputs(
    utterances: list[Utterance], model: AcousticModel
) -> Iterator[tuple[Utterance, int]]:
    """Each utterance with the frames of log-probabilities that the model gives for it."""
    frames = torch.tensor([utterance.frames for utterance in utterances])
    return zip(utterances, model.output_lengths(frames).tolist(), strict=True)
