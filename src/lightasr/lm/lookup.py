"""Looks words up in an n-gram's tables, in compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

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


# Functions that allocate nothing. Numba's runtime would count the references to each array of a
# tuple at every call, which takes longer than what the function does.
compiled = numba.njit(cache=True, nogil=True, _nrt=False)
# Those that a search calls at every step: a tuple of arrays is copied at a call, too.
inlined = numba.njit(cache=True, nogil=True, _nrt=False, inline="always")


@inlined
def score(tables: Tables, state: int, word: int) -> tuple[float, int]:
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
def parents(word: Ints, begin: Ints, ngrams: Ints) -> Ints:
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
def links(word: Ints, begin: Ints, backoff: Floats, parent: Ints) -> tuple[Ints, Ints]:
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
def score_words(tables: Tables, state: int, words: Ints) -> float:
    total = 0.0
    for word in words:
        logp, state = score(tables, state, word)
        total += logp
    return total
