"""The prefixes of a beam search, as a tree in flat arrays, in compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from lightasr.lm.lookup import inlined

Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]

NEVER = -np.inf
NOBODY = -1


class Tree(NamedTuple):
    """Prefixes; the empty one is node 0. All arrays but the last two are over nodes."""

    parent: Ints
    symbol: Ints
    lex: Ints
    """Where in the lexicon the word is that is being spelt."""
    state: Ints
    """The language model's state."""
    prior: Doubles
    """Weighted score of the language model and of the words that are complete."""
    frame: Ints
    """Where the last symbol most likely was."""
    peak: Doubles
    """How likely that was."""
    ahead: Doubles
    """Weighted score of the likeliest word that the one that is being spelt can become."""
    slot: Ints
    """Place in the beam; NOBODY outside of it."""
    keys: NDArray[np.int64]
    """Parent and symbol of a node in an open hash table; NOBODY where there is none."""
    nodes: Ints
    """The node there."""


class Beam(NamedTuple):
    """The prefixes that are followed."""

    node: Ints
    blank: Doubles
    """log P_b"""
    symbol: Doubles
    """log P_nb"""


@numba.njit(cache=True, nogil=True)
def new_tree(capacity: int) -> Tree:
    """Room for so many prefixes."""
    size = 1
    while size < 2 * capacity:
        size *= 2
    return Tree(
        np.empty(capacity, np.int32),
        np.empty(capacity, np.int32),
        np.empty(capacity, np.int32),
        np.empty(capacity, np.int32),
        np.empty(capacity, np.float64),
        np.empty(capacity, np.int32),
        np.empty(capacity, np.float64),
        np.empty(capacity, np.float64),
        np.empty(capacity, np.int32),
        np.full(size, NOBODY, np.int64),
        np.empty(size, np.int32),
    )


@numba.njit(cache=True, nogil=True)
def new_beam(width: int) -> Beam:
    return Beam(np.zeros(width, np.int32), np.full(width, NEVER), np.full(width, NEVER))


@inlined
def find(tree: Tree, parent: int, symbol: int, symbols: int) -> int:
    """Where in the hash table a node is, or would be put."""
    key = np.int64(parent) * symbols + symbol
    mask = len(tree.keys) - 1
    place = (key * np.int64(0x9E3779B97F4A7C15 - (1 << 64)) >> np.int64(20)) & mask
    while tree.keys[place] != NOBODY and tree.keys[place] != key:
        place = (place + 1) & mask
    return place


@numba.njit(cache=True, nogil=True)
def spell(tree: Tree, node: int) -> tuple[Ints, Ints]:
    """The symbols of a prefix and their frames."""
    length, at = 0, node
    while at > 0:
        length += 1
        at = tree.parent[at]
    symbols, frames = np.empty(length, np.int32), np.empty(length, np.int32)
    for place in range(length - 1, -1, -1):
        symbols[place], frames[place] = tree.symbol[node], tree.frame[node]
        node = tree.parent[node]
    return symbols, frames


@numba.njit(cache=True, nogil=True)
def move(old: Tree, used: int, new: Tree, beam: Beam, width: int, symbols: int) -> int:
    """Copy the prefixes that the beam hangs on into an empty tree; how many they are."""
    needed = np.zeros(used, np.bool_)
    needed[0] = True
    for i in range(width):
        node = beam.node[i]
        while not needed[node]:
            needed[node] = True
            node = old.parent[node]
    number = np.full(used, NOBODY, np.int32)
    count = 0
    for node in range(used):  # parents come first
        if not needed[node]:
            continue
        number[node] = count
        parent = number[old.parent[node]] if node else NOBODY
        new.parent[count], new.symbol[count] = parent, old.symbol[node]
        new.lex[count], new.state[count] = old.lex[node], old.state[node]
        new.prior[count], new.frame[count] = old.prior[node], old.frame[node]
        new.ahead[count], new.peak[count] = old.ahead[node], old.peak[node]
        new.slot[count] = NOBODY
        if node:
            place = find(new, parent, old.symbol[node], symbols)
            new.keys[place] = np.int64(parent) * symbols + old.symbol[node]
            new.nodes[place] = count
        count += 1
    for i in range(width):
        beam.node[i] = number[beam.node[i]]
    return count
