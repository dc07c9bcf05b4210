"""Writes text in the units that an n-gram counts: words, or the symbols of a tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightasr.lm.arpa import UNKNOWN
from lightasr.text.normalize import Normalizer

if TYPE_CHECKING:
    from lightasr import schema
    from lightasr.text.tokenizers import Tokenizer


class Units:
    """Splits sentences; without a tokenizer into words."""

    def __init__(self, text: schema.Text, tokenizer: Tokenizer | None = None) -> None:
        self._normalize = Normalizer(text)
        self._tokenizer = tokenizer

    def written(self, line: str) -> str:
        """A line as transcripts are written."""
        return self._normalize(line)

    def split(self, sentence: str) -> list[str] | None:
        """The units of a written sentence; None where the tokenizer cannot write it."""
        if self._tokenizer is None:
            return sentence.split()
        if self._tokenizer.outside(sentence):
            return None
        return self._symbols(sentence)

    def split_with_unknown(self, sentence: str) -> list[str]:
        """The same, with `<unk>` for each word that the tokenizer cannot write."""
        units = self.split(sentence)
        if units is not None:
            return units
        assert self._tokenizer is not None, "words can always be split"
        boundary = self._tokenizer.boundary
        between = [] if boundary is None else [self._tokenizer.symbols[boundary]]
        found: list[str] = []
        for word in sentence.split():
            found += between if found else []
            found += [UNKNOWN] if self._tokenizer.outside(word) else self._symbols(word)
        return found

    def _symbols(self, sentence: str) -> list[str]:
        assert self._tokenizer is not None
        return [self._tokenizer.symbols[i] for i in self._tokenizer.encode(sentence)]
