"""Reads KenLM's binary tries, plain or quantised, so that a lab's ready `lm.bin` can be used.

A trie goes from an n-gram's last word to its first. An order's entries are packed bit by bit: a
word, probability and back-off weight (or the numbers of their bins), then where the entries begin
that have one word more. The other kinds are refused: a probing table holds hashes alone.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from lightasr.errors import LightasrError
from lightasr.lm.arpa import UNKNOWN, Arpa, NGrams

MAGIC = b"mmap lm http://kheafield.com/code "
VERSION = b"format version 5\n\0"
SANITY_BYTES = 88  # the magic, and numbers that another machine would write otherwise
FIXED = struct.Struct("<B3xfIB3xI")  # order, multiplier, kind, whether words are in it, version
KINDS = (
    "probing hash tables",
    "probing hash tables with rest costs",
    "a trie",
    "a quantised trie",
    "a trie with compressed pointers",
    "a quantised trie with compressed pointers",
)
TRIE, QUANTISED_TRIE = 2, 3
QUANTISATION_VERSION = 2
UNIGRAM = np.dtype([("logp", "<f4"), ("backoff", "<f4"), ("next", "<u8")])
LOGP_BITS, BACKOFF_BITS = 31, 32  # of a negative number the sign is not stored
SIGN = np.uint32(1 << 31)
SPARE_BYTES = 8  # behind each order's entries

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Longs = NDArray[np.uint64]


class Bins(NamedTuple):
    """The values that an order's quantised numbers stand for."""

    logp: Floats
    backoff: Floats


class Head(NamedTuple):
    """What a file says of itself."""

    counts: list[int]
    quantised: bool


def is_binary(path: Path) -> bool:
    """Whether a file is one of KenLM's own."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_binary(path: Path) -> Arpa:
    """Read a trie; LightasrError says what to do about any other file."""
    return _Reader(path).read()


class _Reader:
    """Goes through a file once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: Bytes = np.fromfile(path, np.uint8)
        self.at = 0

    def read(self) -> Arpa:
        counts, quantised = self._head()
        self._take(8 * (1 + counts[0]))  # of the words their number and hashes
        bins = self._bins(len(counts)) if quantised else [None] * (len(counts) - 1)
        unigrams = self._take(UNIGRAM.itemsize * (counts[0] + 2)).view(UNIGRAM)
        begins = unigrams["next"][: counts[0] + 1]
        unigrams = unigrams[: counts[0]]
        paths = np.arange(counts[0], dtype=np.int32)[:, None]
        orders = [NGrams(paths, -np.abs(unigrams["logp"]), unigrams["backoff"].copy())]
        for order, bins_of_order in enumerate(bins, start=2):
            longer = counts[order] if order < len(counts) else 0
            entries = self._entries(counts[0], counts[order - 1], longer, bins_of_order)
            word, logp, backoff, next_begins = entries
            children = begins[1:].astype(np.int64) - begins[:-1].astype(np.int64)
            if (children < 0).any() or children.sum() != len(word):
                raise self._damaged(f"its {order - 1}-grams do not lead to its {order}-grams")
            above = np.repeat(np.arange(len(paths)), children)
            paths, begins = np.column_stack([paths[above], word]), next_begins
            orders.append(NGrams(np.ascontiguousarray(paths[:, ::-1]), logp, backoff))
        return Arpa(self._words(counts[0]), orders)

    def _head(self) -> Head:
        if bytes(self.data[len(MAGIC) : len(MAGIC) + len(VERSION)]) != VERSION:
            raise LightasrError(
                f"{self.path}: build_binary did not finish it, or is of another version: give the "
                "ARPA file that it was made from"
            )
        self._take(SANITY_BYTES)
        order, _, kind, has_words, _ = FIXED.unpack(self._take(FIXED.size).tobytes())
        if kind not in {TRIE, QUANTISED_TRIE}:
            name = KINDS[kind] if kind < len(KINDS) else f"kind {kind}"
            raise LightasrError(
                f"{self.path}: {name}, from which no n-grams can be read: give the ARPA file that "
                "it was made from, or make a plain trie of that: `build_binary trie lm.arpa lm.bin`"
            )
        if not has_words:
            raise LightasrError(
                f"{self.path}: holds no words: give the ARPA file that it was made from"
            )
        counts = self._take(8 * order).view(np.uint64).tolist()
        self._take(-self.at % 8)
        return Head(counts, kind == QUANTISED_TRIE)

    def _bins(self, highest: int) -> list[Bins | None]:
        """Of each order from 2 on."""
        version, logp_bits, backoff_bits = self._take(8)[:3].tolist()
        if version != QUANTISATION_VERSION:
            raise self._damaged("it is quantised in a way of another version")
        bins: list[Bins | None] = []
        for order in range(2, highest + 1):
            logp = self._take(4 << logp_bits).view(np.float32)
            size = 4 << backoff_bits if order < highest else 0
            bins.append(Bins(logp, self._take(size).view(np.float32)))
        return bins

    def _entries(
        self, words: int, count: int, longer: int, bins: Bins | None
    ) -> tuple[NDArray[np.int32], Floats, Floats, Longs]:
        """Words, probabilities, back-offs and places of an order; `longer` counts the next one."""
        bits = [words.bit_length(), *_value_bits(bins, longer > 0), longer.bit_length()]
        size = ((1 + count) * sum(bits) + 7) // 8
        packed = self._take(size + SPARE_BYTES)
        word, first, second, begins = (
            _unpack(packed, count + 1, sum(bits), sum(bits[:n]), bits[n]) for n in range(4)
        )
        word, first, second = word[:count], first[:count], second[:count]
        if count and word.max() >= words:
            raise self._damaged("it has an n-gram of a word that it does not hold")
        if bins is None:
            logp = (first.astype(np.uint32) | SIGN).view(np.float32)
            backoff = second.astype(np.uint32).view(np.float32)
        else:  # the other way round
            logp = bins.logp[second if longer else first]
            backoff = bins.backoff[first] if longer else np.zeros(count, np.float32)
        return word.astype(np.int32), logp, backoff, begins

    def _words(self, count: int) -> list[str]:
        *words, rest = self.data[self.at :].tobytes().split(b"\0")
        if len(words) != count or rest or words[0] != UNKNOWN.encode():
            raise self._damaged(f"its end is not a list of {count} words")
        try:
            return [word.decode() for word in words]
        except UnicodeDecodeError as error:
            raise self._damaged(f"a word is not UTF-8 text: {error}") from None

    def _take(self, size: int) -> Bytes:
        """The next bytes."""
        if self.at + size > len(self.data):
            raise self._damaged(f"it has {len(self.data)} bytes, too few for what its head says")
        self.at += size
        return self.data[self.at - size : self.at]

    def _damaged(self, why: str) -> LightasrError:
        return LightasrError(f"{self.path}: damaged: {why}; give the ARPA file it was made from")


def _value_bits(bins: Bins | None, has_backoff: bool) -> tuple[int, int]:
    """Bits of the two values in an entry, as they follow one another."""
    if bins is None:
        return LOGP_BITS, BACKOFF_BITS if has_backoff else 0
    logp = len(bins.logp).bit_length() - 1
    return (len(bins.backoff).bit_length() - 1, logp) if has_backoff else (logp, 0)


# --- compiled -------------------------------------------------------------------------------------


@numba.njit(cache=True)
def _unpack(packed: Bytes, count: int, stride: int, offset: int, bits: int) -> Any:
    """`count` numbers of some bits each, a stride of bits apart."""
    found = np.zeros(count, np.uint64)
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    for row in range(count):
        bit = row * stride + offset
        value = np.uint64(0)
        first = bit >> 3
        for byte in range(min(8, len(packed) - first)):
            value |= np.uint64(packed[first + byte]) << np.uint64(8 * byte)
        found[row] = (value >> np.uint64(bit & 7)) & mask
    return found
