"""What a recognizer is trained on: utterances that fit, and those of the dev part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightasr import schema
from lightasr.data.batches import (
    Batch,
    FeatureStore,
    Utterance,
    read_held_out,
    read_utterances,
)
from lightasr.data.labels import read_labels
from lightasr.errors import LightasrError
from lightasr.models.asr import AcousticModel
from lightasr.text.tokenizers import Tokenizer, load_tokenizer
from lightasr.train.task import Corpus

MEASURED_UTTERANCES = 2000


class SpeechCorpus(Corpus[Batch]):
    """Utterances, and the features of each."""

    examples, costs = "utterances", "s of audio"
    utterances: list[Utterance]

    def __init__(self, config: schema.SpeechOptimization, by_speaker: bool) -> None:
        super().__init__(config, config.batch_seconds)
        self.max_seconds = config.max_seconds
        self.store = FeatureStore(by_speaker)

    def sample(self) -> list[Tensor]:
        """Features of training utterances, evenly chosen, to measure mean and variance on."""
        every = -(-len(self.utterances) // MEASURED_UTTERANCES)
        return [self.store.load(utterance) for utterance in self.utterances[::every]]

    def __len__(self) -> int:
        return len(self.utterances)

    def size(self, example: int) -> float:
        return self.utterances[example].seconds

    def read(self, part: Sequence[int]) -> Batch:
        return self.store.read(self.utterances, part)

    def stream(self, parts: list[list[int]]) -> Iterator[Batch]:
        return self.store.stream(self.utterances, parts)

    def too_large(self, batch: Batch, section: str) -> str:
        """What of a batch takes memory, and which settings make it less."""
        longest = max(batch.utterances, key=lambda utterance: utterance.seconds)
        return (
            f"{len(batch.utterances)} utterances, the longest {longest.id} of "
            f"{longest.seconds:.1f} s: lower {section}.batch_seconds ({self.batch_cost:g}) "
            f"or {section}.max_seconds ({self.max_seconds:g})"
        )


class TrainingCorpus(SpeechCorpus):
    """Training and dev utterances of one run, with the tokenizer that writes them."""

    def __init__(self, config: schema.TrainSlice, inputs: dict[str, Path]) -> None:
        super().__init__(config.train, config.model.normalize == "speaker")
        self.tokenizer: Tokenizer = load_tokenizer(inputs["tokenizer"])
        dev_name = f"features/{config.dev}"
        training = [
            path
            for name, path in inputs.items()
            if name.startswith("features/") and name != dev_name
        ]
        self.utterances = read_utterances(training, config.text, self.tokenizer)
        if (labels := read_labels(inputs)) is not None:
            self.utterances = [each for each in self.utterances if each.recording in labels]
        dev = read_held_out(inputs[dev_name], config.text, self.tokenizer)
        self.dev = thinned(dev, config.train.validate_utterances)

    def set_aside_unfit(self, model: AcousticModel, title: str) -> None:
        """Keep the utterances that can be trained on, and count the others by reason.

        Those of the dev part are all decoded; what has no loss is counted.
        """
        kept: list[Utterance] = []
        for utterance, outputs in zip_outputs(self.utterances, model):
            reason = utterance.unfit(outputs)
            if utterance.seconds > self.max_seconds:
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

    def symbols(self, example: int) -> int:
        return len(self.utterances[example].tokens)


def zip_outputs(
    utterances: list[Utterance], model: AcousticModel
) -> Iterator[tuple[Utterance, int]]:
    """Each utterance with the frames of log-probabilities that the model gives for it."""
    frames = torch.tensor([utterance.frames for utterance in utterances])
    return zip(utterances, model.output_lengths(frames).tolist(), strict=True)


def thinned(utterances: list[Utterance], most: int) -> list[Utterance]:
    """At most so many of them, taken evenly."""
    return utterances[:: max(1, -(-len(utterances) // most))]
