"""Reads n-gram models in ARPA format, plain or gzipped, at the speed of compiled code."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from lightasr.errors import LightasrError

GZIP = b"\x1f\x8b"  # first bytes of a gzipped file
BLOCK_BYTES = 1 << 25
UNKNOWN = "<unk>"
UNKNOWN_LOGP = -100.0  # KenLM's, where a model does not say it

DONE, MORE_LINES, NOT_A_LINE, NOT_A_WORD, POSITIVE, TOO_FEW = range(6)
COMPLAINTS = {
    NOT_A_LINE: "is not `logarithm words [backoff]` with {order} words",
    NOT_A_WORD: "has a word that is not among the 1-grams",
    POSITIVE: "has a positive logarithm of a probability",
    TOO_FEW: "ends the {order}-grams: the head of the file promises {count}",
}

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Hashes = NDArray[np.uint64]


class Readable(Protocol):
    """A file, or what unpacks one."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class NGrams:
    """All n-grams of one order."""

    words: Ints
    """Their words, as numbers; shape (n-grams, order)."""
    logp: Floats
    """Logarithm to base 10 of the last word's probability after those before it."""
    backoff: Floats
    """The weight, as such a logarithm, of shorter histories; 0 where the file gives none."""


@dataclass(frozen=True)
class Arpa:
    """A model: its words, `<unk>` among them, and the n-grams of order 1, 2, ..."""

    words: list[str]
    orders: list[NGrams]


def read_arpa(path: Path) -> Arpa:
    """Read a model; LightasrError names the line that is wrong."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            return _Reader(path, gzip.open(file) if packed else file).read()
    except FileNotFoundError:
        raise LightasrError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise LightasrError(f"{path}: not readable: {error}") from error


class _Reader:
    """Goes through a file once, block by block."""

    def __init__(self, path: Path, stream: Readable) -> None:
        self.path, self.stream = path, stream
        self.block = b""
        self.at = 0
        self.lines = 0
        self.ended = False

    def read(self) -> Arpa:
        counts = self._head()
        words, unigrams = self._unigrams(counts[0])
        table = _hash_words([word.encode() for word in words])
        orders = [unigrams]
        for order, count in enumerate(counts[1:], start=2):
            orders.append(self._section(order, count, *table))
        if (line := self._text_line()) != "\\end\\":
            raise self._wrong(f"is {line!r} where `\\end\\` is expected")
        return _with_unknown(words, orders)

    def _head(self) -> list[int]:
        """How many n-grams of each order the file promises."""
        if (line := self._text_line()) != "\\data\\":
            raise self._wrong(f"is {line[:40]!r}, not `\\data\\`: no model in ARPA format")
        counts: list[int] = []
        while (line := self._text_line()).startswith("ngram"):
            order, _, count = line.removeprefix("ngram").partition("=")
            if order.strip() != str(len(counts) + 1) or not count.strip().isdigit():
                raise self._wrong(f"is {line!r} where `ngram {len(counts) + 1}=...` is expected")
            counts.append(int(count))
        if not counts or line != "\\1-grams:":
            raise self._wrong(f"is {line!r} where `\\1-grams:` is expected")
        return counts

    def _unigrams(self, count: int) -> tuple[list[str], NGrams]:
        words: dict[str, int] = {}
        logp, backoff = np.zeros(count, np.float32), np.zeros(count, np.float32)
        for row in range(count):
            fields = self._text_line().split()
            if len(fields) not in {2, 3}:
                raise self._wrong(COMPLAINTS[NOT_A_LINE].format(order=1))
            try:
                logp[row], backoff[row] = float(fields[0]), float((*fields, "0")[2])
            except ValueError:
                raise self._wrong(COMPLAINTS[NOT_A_LINE].format(order=1)) from None
            if logp[row] > 0:
                raise self._wrong(COMPLAINTS[POSITIVE])
            if words.setdefault(fields[1], row) != row:
                raise self._wrong(f"has the word {fields[1]!r} a second time")
        return list(words), NGrams(np.arange(count, dtype=np.int32)[:, None], logp, backoff)

    def _section(self, order: int, count: int, keys: Hashes, numbers: Ints) -> NGrams:
        title = f"\\{order}-grams:"
        if (line := self._text_line()) != title:
            raise self._wrong(f"is {line!r} where `{title}` is expected")
        words = np.zeros((count, order), np.int32)
        logp, backoff = np.zeros(count, np.float32), np.zeros(count, np.float32)
        row, status = 0, MORE_LINES
        while status == MORE_LINES:
            if not self.ended:
                self._refill()
            text = np.frombuffer(self.block, np.uint8)
            status, row, self.at, passed = _parse_lines(
                text, self.at, keys, numbers, words, logp, backoff, row, self.ended
            )
            self.lines += passed
        if status != DONE:
            self.lines += 1
            raise self._wrong(COMPLAINTS[status].format(order=order, count=count))
        return NGrams(words, logp, backoff)

    def _refill(self) -> None:
        more = self.stream.read(BLOCK_BYTES)
        self.block, self.at = self.block[self.at :] + more, 0
        if not more:
            self.ended = True

    def _text_line(self) -> str:
        """The next line that is not empty, without its end; empty at the end of the file."""
        while True:
            end = self.block.find(b"\n", self.at)
            if end < 0 and not self.ended:
                self._refill()
                continue
            end = end if end >= 0 else len(self.block)
            line, finished = self.block[self.at : end], end == len(self.block)
            self.at = min(end + 1, len(self.block))
            self.lines += 1
            try:
                text = line.decode().strip()
            except UnicodeDecodeError:
                raise self._wrong("is not UTF-8 text") from None
            if text or finished:
                return text

    def _wrong(self, what: str) -> LightasrError:
        return LightasrError(f"{self.path}:{self.lines}: the line {what}")


def _with_unknown(words: list[str], orders: list[NGrams]) -> Arpa:
    """The model with `<unk>`, added as its last word where it has none."""
    if UNKNOWN in words or UNKNOWN.upper() in words:
        return Arpa(words, orders)
    unigrams = orders[0]
    numbers = np.arange(len(words) + 1, dtype=np.int32)[:, None]
    logp = np.append(unigrams.logp, np.float32(UNKNOWN_LOGP))
    backoff = np.append(unigrams.backoff, np.float32(0.0))
    return Arpa([*words, UNKNOWN], [NGrams(numbers, logp, backoff), *orders[1:]])


def renumber(arpa: Arpa, order: NDArray[np.int64]) -> Arpa:
    """The same model with its words in another order: word `order[n]` becomes word `n`."""
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    first, *longer = arpa.orders
    return Arpa(
        [arpa.words[n] for n in order],
        [
            NGrams(first.words, first.logp[order], first.backoff[order]),
            *(NGrams(number[ngrams.words], ngrams.logp, ngrams.backoff) for ngrams in longer),
        ],
    )


# --- compiled -------------------------------------------------------------------------------------

FNV_OFFSET, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
TAB, NEWLINE, RETURN, SPACE, BACKSLASH = (np.uint8(ord(c)) for c in "\t\n\r \\")
PLUS, MINUS, POINT, ZERO, SMALL_E, LARGE_E = (np.uint8(ord(c)) for c in "+-.0eE")


def _hash_words(words: list[bytes]) -> tuple[Hashes, Ints]:
    """Hashes of words in an open table at most half full, and the numbers of the words there."""
    size = 1 << (2 * len(words)).bit_length()
    keys, numbers = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    ends = np.cumsum([len(word) for word in words], dtype=np.int64)
    _fill_table(np.frombuffer(b"".join(words), np.uint8), ends, keys, numbers)
    return keys, numbers


@numba.njit(cache=True)
def _fill_table(text: Bytes, ends: NDArray[np.int64], keys: Hashes, numbers: Ints) -> None:
    begin = 0
    for number in range(len(ends)):
        key = _hash(text, begin, ends[number])
        place = _place(keys, numbers, key)
        keys[place], numbers[place] = key, number
        begin = ends[number]


@numba.njit(cache=True, inline="always")
def _hash(text: Bytes, begin: int, end: int) -> np.uint64:
    """FNV-1a."""
    key = FNV_OFFSET
    for at in range(begin, end):
        key = (key ^ np.uint64(text[at])) * FNV_PRIME
    return key


@numba.njit(cache=True, inline="always")
def _place(keys: Hashes, numbers: Ints, key: np.uint64) -> np.int64:
    """Where a key is, or where it would be put."""
    mask = len(keys) - 1
    place = np.int64(key ^ (key >> np.uint64(32))) & mask
    while numbers[place] >= 0 and keys[place] != key:
        place = (place + 1) & mask
    return place


@numba.njit(cache=True)
def _parse_lines(
    text: Bytes,
    at: int,
    keys: Hashes,
    numbers: Ints,
    words: Ints,
    logp: Floats,
    backoff: Floats,
    row: int,
    ended: bool,
) -> tuple[int, int, int, int]:
    """Read lines `logarithm words [backoff]` while there are rows to fill.

    Returns the status, the next row, the place after the last whole line and how many lines passed.
    """
    rows, order = words.shape
    passed = 0
    while row < rows:
        end = at
        while end < len(text) and text[end] != NEWLINE:
            end += 1
        if end == len(text) and not ended:
            return MORE_LINES, row, at, passed
        begin, stop = _field(text, at, end)
        if begin == stop:  # an empty line
            if end == len(text):
                return TOO_FEW, row, at, passed
            at = end + 1
            passed += 1
            continue
        if text[begin] == BACKSLASH:
            return TOO_FEW, row, at, passed
        good, value = _number(text, begin, stop)
        if not good:
            return NOT_A_LINE, row, at, passed
        if value > 0:
            return POSITIVE, row, at, passed
        logp[row] = value
        for place in range(order):
            begin, stop = _field(text, stop, end)
            if begin == stop:
                return NOT_A_LINE, row, at, passed
            number = numbers[_place(keys, numbers, _hash(text, begin, stop))]
            if number < 0:
                return NOT_A_WORD, row, at, passed
            words[row, place] = number
        begin, stop = _field(text, stop, end)
        if begin < stop:
            good, value = _number(text, begin, stop)
            rest, last = _field(text, stop, end)
            if not good or rest < last:
                return NOT_A_LINE, row, at, passed
            backoff[row] = value
        row += 1
        passed += 1
        at = min(end + 1, len(text))
    return DONE, row, at, passed


@numba.njit(cache=True, inline="always")
def _is_space(byte: np.uint8) -> bool:
    return byte in (SPACE, TAB, RETURN)


@numba.njit(cache=True)
def _field(text: Bytes, at: int, end: int) -> tuple[int, int]:
    """The next field before `end`; empty where there is none."""
    while at < end and _is_space(text[at]):
        at += 1
    stop = at
    while stop < end and not _is_space(text[stop]):
        stop += 1
    return at, stop


@numba.njit(cache=True)
def _number(text: Bytes, at: int, end: int) -> tuple[bool, float]:
    """A decimal number, and whether it is one."""
    sign = -1.0 if text[at] == MINUS else 1.0
    if text[at] == MINUS or text[at] == PLUS:
        at += 1
    value, digits, decimals, point = 0.0, 0, 0, False
    while at < end and text[at] != SMALL_E and text[at] != LARGE_E:
        if text[at] == POINT and not point:
            point = True
        elif ZERO <= text[at] < ZERO + 10:
            value = 10.0 * value + (text[at] - ZERO)
            digits += 1
            decimals += point
        else:
            return False, 0.0
        at += 1
    exponent = 0
    if at < end:
        at += 1
        negative = at < end and text[at] == MINUS
        if at < end and (text[at] == MINUS or text[at] == PLUS):
            at += 1
        if at == end:
            return False, 0.0
        while at < end:
            if not ZERO <= text[at] < ZERO + 10:
                return False, 0.0
            exponent = 10 * exponent + (text[at] - ZERO)
            at += 1
        exponent = -exponent if negative else exponent
    return digits > 0, sign * value * 10.0 ** (exponent - decimals)
