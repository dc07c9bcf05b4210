"""An n-gram as flat arrays: every word sequence of the model is a node, reached from its history.

The nodes form a tree: below the root the words, below a word those that follow it, and so on. The
children of a node lie side by side, sorted by word. A state is the node of the longest history that
the model can go on from. Scores are KenLM's: logarithms to base 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from lightasr.errors import LightasrError
from lightasr.lm.arpa import UNKNOWN, Arpa, read_arpa

BEGIN, END = "<s>", "</s>"
NOT_WORDS = frozenset({UNKNOWN, UNKNOWN.upper(), BEGIN, END})

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

ROOT = 0
BLOCK = 32


class Tables(NamedTuple):
    """Arrays over nodes; the root is node 0, and word `w` without a history is node `1 + w`."""

    word: Ints
    """Last word of each node."""
    logp: Floats
    """Its logarithm, given those before it."""
    backoff: Floats
    """What it costs to go on with a word that the node has no child for."""
    begin: Ints
    """Node `n` has the children `begin[n]` to `begin[n + 1]`; the longest n-grams have none."""
    shorter: Ints
    """The node without its first word, or the longest end of it that there is."""
    state: Ints
    """The history to go on from: the node itself, or the end of it that can be continued."""
    highest: Floats
    """Highest logarithm in each block of BLOCK nodes."""


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
        return float(_score_words(self.tables, self.start, np.array(words, np.int32)))


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
        above = _parents(word, begin, ngrams.words)
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
    shorter, state = _links(word, begin, backoff, parent)
    return Tables(word, logp, backoff, begin, shorter, state, _highest(logp))


def _highest(logp: Floats) -> Floats:
    return np.maximum.reduceat(logp, np.arange(0, len(logp), BLOCK))


def _spell(arpa: Arpa, words: Ints) -> str:
    return " ".join(arpa.words[number] for number in words)


# --- compiled -------------------------------------------------------------------------------------

# Functions that allocate nothing. Numba's runtime would count the references to each array of a
# tuple at every call, which takes longer than what the function does.
compiled = numba.njit(cache=True, nogil=True, _nrt=False)
# Those that a search calls at every step: a tuple of arrays is copied at a call, too.
inlined = numba.njit(cache=True, nogil=True, _nrt=False, inline="always")


@inlined
def score(tables: Any, state: int, word: int) -> tuple[float, int]:
    """Logarithm of a word's probability after a history, and the history that follows."""
    total = np.float32(0.0)
    while True:
        node = find_child(tables.word, tables.begin, state, word)
        if node >= 0:
            return total + tables.logp[node], tables.state[node]
        total += tables.backoff[state]
        state = tables.shorter[state]


@inlined
def find_child(words: Ints, begin: Ints, node: int, word: int) -> int:
    """The node of a history and the word after it; -1 where the model has none."""
    if node == ROOT:
        return 1 + word
    end = begin[node + 1]
    found = _lower_bound(words, begin[node], end, word)
    return found if found < end and words[found] == word else -1


@inlined
def best_of(tables: Tables, state: int, low: int, high: int, best: float) -> float:
    """The highest logarithm of the words `low` to `high` after a history.

    `best` is the highest without one.
    """
    found, cost = np.float32(-np.inf), np.float32(0.0)
    while state != ROOT:
        end = tables.begin[state + 1]
        first = _lower_bound(tables.word, tables.begin[state], end, low)
        last = _lower_bound(tables.word, first, end, high)
        found = max(found, cost + _maximum(tables.logp, tables.highest, first, last))
        cost += tables.backoff[state]
        state = tables.shorter[state]
    return max(found, cost + np.float32(best))


@compiled
def _lower_bound(words: Ints, low: int, high: int, word: int) -> int:
    while low < high:
        middle = (low + high) >> 1
        if words[middle] < word:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _maximum(logp: Floats, highest: Floats, first: int, last: int) -> float:
    found = np.float32(-np.inf)
    while first < last:
        if first % BLOCK == 0 and first + BLOCK <= last:
            found = max(found, highest[first // BLOCK])
            first += BLOCK
        else:
            found = max(found, logp[first])
            first += 1
    return found


@numba.njit(cache=True)
def _parents(word: Ints, begin: Ints, ngrams: Ints) -> Ints:
    """For each n-gram the node of all but its last word; -1 where there is none."""
    rows, order = ngrams.shape
    found = np.zeros(rows, np.int32)
    for row in range(rows):
        node = ROOT
        for place in range(order - 1):
            node = find_child(word, begin, node, ngrams[row, place])
            if node < 0:
                break
        found[row] = node
    return found


@numba.njit(cache=True)
def _links(word: Ints, begin: Ints, backoff: Floats, parent: Ints) -> tuple[Ints, Ints]:
    """`shorter` and `state` of each node; nodes come after their parents and shorter ends."""
    nodes = len(word)
    shorter, state = np.zeros(nodes, np.int32), np.zeros(nodes, np.int32)
    inner = len(begin) - 1
    for node in range(1, nodes):
        history = parent[node]
        while history != ROOT:
            history = shorter[history]
            end = find_child(word, begin, history, word[node])
            if end >= 0:
                shorter[node] = end
                break
        goes_on = node < inner and (begin[node + 1] > begin[node] or backoff[node] != 0)
        state[node] = node if goes_on else state[shorter[node]]
    return shorter, state


@numba.njit(cache=True)
def _score_words(tables: Any, state: int, words: Ints) -> float:
    total = 0.0
    for word in words:
        logp, state = score(tables, state, word)
        total += logp
    return total
