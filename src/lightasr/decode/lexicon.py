"""The words that may be hypothesised, as a tree of their spellings in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

ROOT = 0
OFF = -1
"""Where a spelling is that no word begins with."""


class Lexicon(NamedTuple):
    """Arrays over nodes; node 0 is the root, the children of a node are sorted by symbol."""

    symbol: Ints
    """Last symbol of each node."""
    begin: Ints
    """Node `n` has the children `begin[n]` to `begin[n + 1]`."""
    word: Ints
    """The word that ends here; -1 where none does."""
    low: Ints
    high: Ints
    """The words below a node are `low` up to, not including, `high`."""
    best: Floats
    """Highest logarithm among them, without a history; 0 at the root."""


def build_lexicon(spellings: Sequence[Sequence[int]], logp: Floats, symbols: int) -> Lexicon:
    """The tree of words 0, 1, 2, ..., given in the order of their spellings."""
    count = len(spellings)
    lengths = np.array([len(spelling) for spelling in spellings], np.int64)
    longest = int(lengths.max(initial=0))
    spelt = np.full((count, longest), -1, np.int64)
    for row, spelling in enumerate(spellings):
        spelt[row, : len(spelling)] = spelling
    node_of = np.zeros(count, np.int64)
    symbol, parent = [np.zeros(1, np.int64)], [np.full(1, -1, np.int64)]
    nodes = 1
    for depth in range(longest):
        rows = np.flatnonzero(lengths > depth)
        branches, branch_of = np.unique(
            node_of[rows] * symbols + spelt[rows, depth], return_inverse=True
        )
        node_of[rows] = nodes + branch_of
        parent.append(branches // symbols)
        symbol.append(branches % symbols)
        nodes += len(branches)
    parents = np.concatenate(parent)
    word, low, high = np.full(nodes, -1, np.int32), np.full(nodes, count), np.zeros(nodes, np.int64)
    best = np.full(nodes, -np.inf, np.float32)
    numbers = np.arange(count)
    word[node_of] = numbers
    np.minimum.at(low, node_of, numbers)
    np.maximum.at(high, node_of, numbers + 1)
    np.maximum.at(best, node_of, logp)
    last = nodes
    for above in reversed(parent[1:]):  # level by level, the longest spellings first
        first = last - len(above)
        np.minimum.at(low, above, low[first:last])
        np.maximum.at(high, above, high[first:last])
        np.maximum.at(best, above, best[first:last])
        last = first
    best[ROOT] = 0.0
    begin = np.searchsorted(parents[1:], np.arange(nodes + 1)) + 1
    return Lexicon(
        np.concatenate(symbol).astype(np.int32),
        begin.astype(np.int32),
        word,
        low.astype(np.int32),
        high.astype(np.int32),
        best,
    )
