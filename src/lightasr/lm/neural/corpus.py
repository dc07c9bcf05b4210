"""What a neural language model is trained on, and the transcripts that it is scored on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightasr import schema
from lightasr.errors import LightasrError
from lightasr.lm.neural.vocabulary import OTHER, START, Collector, Sentences, Vocabulary
from lightasr.lm.sources import TEXTS, one_file, read_text
from lightasr.lm.units import Units
from lightasr.text.tokenizers import Tokenizer, load_tokenizer
from lightasr.text.transcripts import FEATURES, read_transcripts, training_transcripts
from lightasr.train.task import Corpus

HELD_OUT = "held_out/"


@dataclass(frozen=True)
class TextBatch:
    """Padded sentences: what is read, and what follows each unit of it."""

    inputs_bt: Tensor
    targets_bt: Tensor
    lengths_b: Tensor
    numbers: list[int] = field(default_factory=list)
    """Which sentences of the corpus; none for a process that has no part in a step."""
    seconds: float = 0.0

    @property
    def ids(self) -> list[str]:
        return [str(number) for number in self.numbers]

    def tensors(self) -> dict[str, object]:
        return {"numbers": self.numbers, "units": self.inputs_bt, "lengths": self.lengths_b}


def collate(sentences: Sequence[Sequence[int] | np.ndarray]) -> TextBatch:
    """Sentences side by side, with a start and an end each."""
    lengths = [len(sentence) + 1 for sentence in sentences]
    whole = np.full((len(sentences), max(lengths) + 1), START, np.int64)
    for row, sentence in zip(whole, sentences, strict=True):
        row[1 : 1 + len(sentence)] = sentence
    units_bt = torch.from_numpy(whole)
    return TextBatch(units_bt[:, :-1], units_bt[:, 1:], torch.tensor(lengths))


@dataclass(frozen=True)
class Transcripts:
    """The transcripts of a held-out part, as numbers of units."""

    sentences: list[list[int]]
    words: int
    characters: int
    """Spaces and ends of sentences included."""

    @classmethod
    def read(cls, features: Path, units: Units, vocabulary: Vocabulary) -> Transcripts:
        written = [units.written(text) for _, text in read_transcripts(features)]
        if not written:
            raise LightasrError(f"{features}: no transcript to score a language model on")
        return cls(
            [vocabulary.encode(units.split_with_unknown(sentence)) for sentence in written],
            sum(len(sentence.split()) for sentence in written),
            sum(len(sentence) + 1 for sentence in written),
        )

    @property
    def units(self) -> int:
        return sum(len(sentence) for sentence in self.sentences)

    @property
    def unknown(self) -> int:
        return sum(sentence.count(OTHER) for sentence in self.sentences)


class TextCorpus(Corpus[TextBatch]):
    """Text and transcripts, sentence by sentence, and the transcripts of the held-out parts."""

    examples, costs = "sentences", "units"

    def __init__(self, config: schema.NeuralLMSlice, inputs: dict[str, Path], title: str) -> None:
        super().__init__(config.train, config.train.batch_units)
        self.tokenizer: Tokenizer | None = None
        if "tokenizer" in inputs:
            self.tokenizer = load_tokenizer(inputs["tokenizer"])
        units = Units(config.text, self.tokenizer)
        collected = self._collect(units, _lines(inputs), config.train.max_units)
        known = self._known(config, collected)
        if not known:
            aside = ", ".join(f"{count} {reason}" for reason, count in self.set_aside.items())
            raise LightasrError(
                f"{title}: nothing to learn from: no sentence, or no word that occurs "
                f"neural_lm.min_count times{f' (set aside: {aside})' if aside else ''}"
            )
        self.vocabulary = Vocabulary(known)
        self.sentences: Sentences = collected.sentences(self.vocabulary)
        self.held_out = {
            name.removeprefix(HELD_OUT): Transcripts.read(path, units, self.vocabulary)
            for name, path in inputs.items()
            if name.startswith(HELD_OUT)
        }

    def _collect(self, units: Units, lines: Iterator[str], longest: int) -> Collector:
        """All sentences that can be trained on; the others are counted."""
        collected = Collector()
        aside: Counter[str] = self.set_aside
        for line in lines:
            sentence = units.split(units.written(line))
            if sentence is None:
                aside["characters outside the alphabet"] += 1
            elif len(sentence) >= longest:
                aside["longer than neural_lm.train.max_units"] += 1
            elif sentence:
                collected.add(sentence)
        return collected

    def _known(self, config: schema.NeuralLMSlice, collected: Collector) -> list[str]:
        """The tokenizer's symbols, but for the blank; or the words that are frequent."""
        if self.tokenizer is None:
            return collected.frequent(config.vocabulary, config.min_count)
        symbols = self.tokenizer.symbols if collected.frequent(1, 1) else []
        return [symbol for i, symbol in enumerate(symbols) if i != self.tokenizer.blank]

    def __len__(self) -> int:
        return len(self.sentences)

    def size(self, example: int) -> float:
        return self.symbols(example)

    def symbols(self, example: int) -> int:
        return self.sentences.length(example) + 1

    def read(self, part: Sequence[int]) -> TextBatch:
        batch = collate([self.sentences[i] for i in part or (0,)])
        lengths_b = batch.lengths_b if part else torch.zeros_like(batch.lengths_b)
        return TextBatch(batch.inputs_bt, batch.targets_bt, lengths_b, list(part))

    def stream(self, parts: list[list[int]]) -> Iterator[TextBatch]:
        return map(self.read, parts)


def _lines(inputs: dict[str, Path]) -> Iterator[str]:
    """Lines of text and training transcripts, as they are found."""
    if "text" in inputs:
        yield from read_text(one_file(inputs["text"], TEXTS, "of text"))
    if any(name.startswith(FEATURES) for name in inputs):
        for _, text in training_transcripts(inputs):
            yield text
