"""Brings text into the form transcripts are trained and scored in, as `text` of the config says."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from lightasr.text.numbers import NumberReader

if TYPE_CHECKING:
    from lightasr import schema

# NFKC would take most of these apart: the acute accent into a space and a combining mark.
_APOSTROPHES = dict.fromkeys("\u2018\u2019\u201b\u02bc\u0060\uff40\u1fef\u00b4\u2032", "'")
_DOUBLE_PRIMES = dict.fromkeys("\u2033\u2034\u2057", '"')
_FOLDED = str.maketrans({**_APOSTROPHES, **_DOUBLE_PRIMES, "\u0149": "'n"})
# Raised digits and fractions, which NFKC would join to the digits before them.
_APART = str.maketrans(
    {
        char: f" {char}"
        for char in map(chr, range(0x2190))  # up to the end of the block of number forms
        if unicodedata.category(char) == "No" and unicodedata.decomposition(char)
    }
)
_ACCENTS = re.compile("[\u0300-\u036f]+")  # not the marks that are vowels in other scripts
_LETTERS = {
    "upper": string.ascii_uppercase,
    "lower": string.ascii_lowercase,
    "keep": string.ascii_letters,
}
_CASES: dict[str, Callable[[str], str]] = {"upper": str.upper, "lower": str.lower, "keep": str}


class Normalizer:
    """Words with single spaces between them, written as the configuration asks.

    Letters of any alphabet are kept, and digits that are not spelt, so that a tokenizer can name
    them.
    """

    def __init__(self, config: schema.Text) -> None:
        self._case = config.case
        self._read_numbers = NumberReader(config.language) if config.numbers == "spell" else None
        self._apostrophes = config.apostrophes == "keep"
        self._accents = config.accents == "keep"
        self._kept = _Kept("LMNPS" if config.punctuation == "keep" else "LMN")
        self._clean = _clean(config)

    def __call__(self, text: str) -> str:
        if self._clean.fullmatch(text):  # a corpus of text is mostly clean lines; the rest is slow
            return text
        text = text.translate(_FOLDED)
        if self._read_numbers:
            text = self._read_numbers(_composed(text.translate(_APART)))
        text = _composed(text)
        if not self._apostrophes:
            text = text.replace("'", "")
        if not self._accents:
            text = _ACCENTS.sub("", unicodedata.normalize("NFD", text))
        # Changing the case can take a composed letter apart.
        text = _composed(_CASES[self._case](_composed(text)))
        return " ".join(text.translate(self._kept).split())


class _Kept(dict[int, str | int]):
    """A table for `str.translate`: characters of some categories stay, others become spaces."""

    def __init__(self, categories: str) -> None:
        super().__init__({ord("'"): "'"})
        self._categories = categories

    def __missing__(self, code: int) -> str | int:
        kept = unicodedata.category(chr(code))[0] in self._categories
        self[code] = code if kept else " "
        return self[code]


def _clean(config: schema.Text) -> re.Pattern[str]:
    """Matches text that needs no change: words of plain letters."""
    kept = _LETTERS[config.case]
    if config.numbers == "keep":
        kept += string.digits
    if config.punctuation == "keep":
        kept += string.punctuation.replace("`", "").replace("'", "")
    if config.apostrophes == "keep":
        kept += "'"
    return re.compile(f"[{re.escape(kept)}]+(?: [{re.escape(kept)}]+)*")


def _composed(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def outside_alphabet(text: str, alphabet: Collection[str]) -> set[str]:
    """The characters of the text that the alphabet lacks."""
    return set(text).difference(alphabet)
