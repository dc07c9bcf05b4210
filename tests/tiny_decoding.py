"""A tiny language model and tokenizers of two letters, for searches that can be done by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from lightasr.errors import LightasrError
from lightasr.text.tokenizers import Tokenizer
from lightasr.text.vocabulary import PIECE_BOUNDARY

ARPA = """\\data\\
ngram 1=8
ngram 2=6

\\1-grams:
-2.0\t<unk>\t0
0\t<s>\t-0.4
-0.9\t</s>\t0
-0.7\tA\t-0.3
-1.1\tB\t-0.2
-0.8\tAB\t-0.5
-1.3\tBA\t-0.1
-1.6\tBB\t0

\\2-grams:
-0.3\t<s> AB
-0.9\t<s> B
-0.2\tAB A
-0.5\tA </s>
-0.6\tB BA
-0.4\tBA </s>

\\end\\
"""
WORDS = ["A", "AB", "B", "BA", "BB"]


class Letters(Tokenizer):
    """Two letters and `|` between words."""

    boundary = 1

    def __init__(self) -> None:
        super().__init__(["<blank>", "|", "A", "B"])

    def encode(self, text: str) -> list[int]:
        if not set(text) <= {"A", "B"}:
            raise LightasrError(f"no symbol: {text}")
        return [self.symbols.index(char) for char in text]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join("".join(self.symbols[i] for i in ids if i).replace("|", " ").split())


class Pieces(Tokenizer):
    """Pieces that start words and pieces that go on with them."""

    boundary = None

    def __init__(self) -> None:
        starts = [f"{PIECE_BOUNDARY}A", f"{PIECE_BOUNDARY}B"]
        super().__init__(["<blank>", *starts, "A", "B"])

    def encode(self, text: str) -> list[int]:
        first = self.symbols.index(PIECE_BOUNDARY + text[0])
        return [first, *(self.symbols.index(char) for char in text[1:])]

    def decode(self, ids: Iterable[int]) -> str:
        spelt = "".join(self.symbols[i] for i in ids if i)
        return " ".join(spelt.replace(PIECE_BOUNDARY, " ").split())


def paths(symbols: int, frames: int) -> Iterable[tuple[int, ...]]:
    """Every path: a symbol a frame."""
    return itertools.product(range(symbols), repeat=frames)


def labels(path: Sequence[int]) -> tuple[int, ...]:
    """What a path writes: without repeats and blanks."""
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
