"""What a search finds, and the weights it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

LogProbs = NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """What is tuned on the dev part: weight of the language model, reward per word."""

    lm_weight: float
    word_score: float


@dataclass(frozen=True)
class Word:
    """A word, the frames of its first and last symbol, and how sure it is."""

    text: str
    first: int
    last: int
    confidence: float
    """Share of the probability of the hypotheses found that has it at this place."""


@dataclass(frozen=True)
class Hypothesis:
    """What may have been said, and the score of the search."""

    text: str
    score: float
    ctc: float | None = None
    """log P_ctc; None where a search does not tell."""
    words: tuple[Word, ...] = ()


Found = list[Sequence[Hypothesis]]
"""The hypotheses of each utterance of a part, the best one first."""


class Search(Protocol):
    """Lexicon and language model, loaded; it decodes one utterance after another."""

    @property
    def symbols(self) -> int:
        """Scores it wants in each frame."""

    @property
    def beam(self) -> int:
        """Hypotheses kept at each frame."""

    @property
    def left_out(self) -> int:
        """Words of the language model that the tokenizer cannot write; they are never found."""

    @property
    def threads(self) -> bool:
        """Whether it lets go of Python's lock, so that threads can decode at the same time."""

    def of(self, *, beam: int | None = None, nbest: int | None = None) -> Self:
        """The same search with another beam, or for more or fewer hypotheses."""

    def decode(self, logp_tv: LogProbs, weights: Weights) -> Sequence[Hypothesis]:
        """The best hypotheses of one utterance `[T, V]`, the best one first."""
