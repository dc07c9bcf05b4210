"""Brings text into the form transcripts are trained and scored in: upper case, no punctuation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from functools import cache

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u201b\u02bc\u0060\u00b4\u2032", "'"))
_CLEAN = re.compile(r"[A-Z']+(?: [A-Z']+)*")


def normalize(text: str) -> str:
    """Upper-case words with single spaces between them; apostrophes stay, other punctuation goes.

    Digits and letters of other alphabets are kept, so that a tokenizer can name them.
    """
    if _CLEAN.fullmatch(text):  # a corpus of text is mostly clean lines; the rest is slow
        return text
    # Apostrophes first: NFKC takes the acute accent for a space and a combining mark. NFKC last
    # again, because upper-casing can take a composed letter apart.
    folded = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).upper()
    folded = unicodedata.normalize("NFKC", folded)
    return " ".join("".join(_keep_or_space(char) for char in folded).split())


@cache
def _keep_or_space(char: str) -> str:
    """The character itself if it is part of words (letter, mark, number, apostrophe)."""
    return char if char == "'" or unicodedata.category(char)[0] in "LMN" else " "


def outside_alphabet(text: str, alphabet: Collection[str]) -> set[str]:
    """The characters of the text that the alphabet lacks."""
    return set(text).difference(alphabet)
