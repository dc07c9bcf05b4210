"""What a training reads: utterances that fit, the dev part, and the plan of an epoch's steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightasr import schema
from lightasr.data.batches import FeatureStore, Utterance, deal, plan_epoch, read_utterances
from lightasr.errors import LightasrError
from lightasr.models.asr import AcousticModel
from lightasr.text.tokenizers import Tokenizer, load_tokenizer
from lightasr.train.distributed import Team

MEASURED_UTTERANCES = 2000


@dataclass(frozen=True)
class Step:
    """One update of the weights: this process's parts of its batch, and the size of the whole."""

    parts: list[list[int]]
    symbols: int
    done: float
    """Share of the training that is done after it."""


class TrainingCorpus:
    """Training and dev utterances of one run, with the tokenizer that writes them."""

    def __init__(self, config: schema.TrainSlice, inputs: dict[str, Path]) -> None:
        self.config = config.train
        self.tokenizer: Tokenizer = load_tokenizer(inputs["tokenizer"])
        dev_name = f"features/{config.dev}"
        training = [path for name, path in inputs.items() if name not in {"tokenizer", dev_name}]
        self.utterances = read_utterances(training, self.tokenizer)
        dev = read_utterances([inputs[dev_name]], self.tokenizer)
        self.dev = dev[:: max(1, -(-len(dev) // config.train.validate_utterances))]
        self.set_aside: dict[str, int] = {}
        self.store = FeatureStore()

    def set_aside_unfit(self, model: AcousticModel, title: str) -> None:
        """Keep the utterances that can be trained on, and count the others by reason."""
        frames = torch.tensor([utterance.frames for utterance in self.utterances])
        outputs = model.output_lengths(frames).tolist()
        kept: list[Utterance] = []
        for utterance, output in zip(self.utterances, outputs, strict=True):
            if utterance.seconds > self.config.max_seconds:
                self._count("longer than train.max_seconds")
            elif output < utterance.least_outputs:
                self._count("too short for their transcript")
            else:
                kept.append(utterance)
        if not kept:
            raise LightasrError(
                f"{title}: no utterance of {len(self.utterances)} can be trained on: "
                + ", ".join(f"{count} {reason}" for reason, count in self.set_aside.items())
            )
        self.utterances = kept

    def _count(self, reason: str) -> None:
        self.set_aside[reason] = self.set_aside.get(reason, 0) + 1

    def sample(self) -> list[Tensor]:
        """Features of training utterances, evenly chosen, to measure mean and variance on."""
        every = -(-len(self.utterances) // MEASURED_UTTERANCES)
        return [self.store.load(utterance) for utterance in self.utterances[::every]]

    def plan(self, epoch: int, team: Team) -> list[Step]:
        """An epoch's steps: every process plans the same ones, and takes its own parts of each."""
        config = self.config
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

    def cost(self, part: list[int]) -> float:
        """Seconds of audio in a part of a batch, padding counted."""
        return len(part) * max((self.utterances[i].seconds for i in part), default=0.0)
