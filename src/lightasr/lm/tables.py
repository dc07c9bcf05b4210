"""An n-gram as flat arrays: every word sequence of the model is a node, reached from its history.

The nodes form a tree: below the root the words, below a word those that follow it, and so on. The
children of a node lie side by side, sorted by word. A state is the node of the longest history that
the model can go on from. Scores are KenLM's: logarithms to base 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightasr.errors import LightasrError
from lightasr.lm.arpa import UNKNOWN, Arpa, read_arpa
from lightasr.lm.lookup import BLOCK, ROOT, Tables, links, parents, score_words

BEGIN, END = "<s>", "</s>"
NOT_WORDS = frozenset({UNKNOWN, UNKNOWN.upper(), BEGIN, END})

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class NGram:
    """A model and its words; `unknown` is the number of all others."""

    tables: Tables
    words: list[str]
    numbers: Mapping[str, int]
    unknown: int

    @property
    def start(self) -> int:
        """The state before the first word of a sentence."""
        begin = self.numbers.get(BEGIN)
        return ROOT if begin is None else int(self.tables.state[1 + begin])

    @property
    def end(self) -> int:
        """The number of the end of a sentence; -1 where the model knows none."""
        return self.numbers.get(END, -1)

    def number(self, word: str) -> int:
        """The number of a word."""
        return self.numbers.get(word, self.unknown)

    def score(self, sentence: str) -> float:
        """Logarithm of a sentence's probability, its end included."""
        words = [self.number(word) for word in sentence.split()]
        words += [self.end] if self.end >= 0 else []
        return float(score_words(self.tables, self.start, np.array(words, np.int32)))


def load_ngram(path: Path) -> NGram:
    """Read a model from an ARPA file."""
    return ngram_of(read_arpa(path), path)


def ngram_of(arpa: Arpa, path: Path) -> NGram:
    """A model with the numbers that its words have in `arpa`; `path` is for messages."""
    numbers = {word: number for number, word in enumerate(arpa.words)}
    unknown = next(numbers[name] for name in (UNKNOWN, UNKNOWN.upper()) if name in numbers)
    return NGram(build(arpa, path), arpa.words, numbers, unknown)


def build(arpa: Arpa, path: Path) -> Tables:
    """The tables of a model; `path` is for messages."""
    sizes = [len(ngrams.logp) for ngrams in arpa.orders]
    offsets = np.concatenate([[1], 1 + np.cumsum(sizes)])
    nodes = int(offsets[-1])
    word, begin = np.zeros(nodes, np.int32), np.zeros(int(offsets[-2]) + 1, np.int32)
    logp, backoff = np.zeros(nodes, np.float32), np.zeros(nodes, np.float32)
    parent = np.zeros(nodes, np.int32)
    begin[:2] = 1, offsets[1]
    for order, ngrams in enumerate(arpa.orders, start=1):
        first, last = int(offsets[order - 1]), int(offsets[order])
        above = parents(word, begin, ngrams.words)
        if (above < 0).any():
            lost = ngrams.words[int(np.flatnonzero(above < 0)[0])]
            raise LightasrError(
                f"{path}: has the {order}-gram {_spell(arpa, lost)!r}, "
                f"but not {_spell(arpa, lost[:-1])!r}, with which it begins"
            )
        sort = np.lexsort((ngrams.words[:, -1], above))
        word[first:last] = ngrams.words[sort, -1]
        parent[first:last] = above[sort]
        logp[first:last], backoff[first:last] = ngrams.logp[sort], ngrams.backoff[sort]
        same = (np.diff(word[first:last]) == 0) & (np.diff(parent[first:last]) == 0)
        if same.any():
            twice = ngrams.words[sort[int(np.flatnonzero(same)[0])]]
            raise LightasrError(f"{path}: has the {order}-gram {_spell(arpa, twice)!r} twice")
        if order > 1:
            uppers = np.arange(offsets[order - 2], offsets[order - 1] + 1)
            begin[uppers] = first + np.searchsorted(parent[first:last], uppers)
    shorter, state = links(word, begin, backoff, parent)
    return Tables(word, logp, backoff, begin, shorter, state, _highest(logp))


def _highest(logp: Floats) -> Floats:
    return np.maximum.reduceat(logp, np.arange(0, len(logp), BLOCK))


def _spell(arpa: Arpa, words: Ints) -> str:
    return " ".join(arpa.words[number] for number in words)
