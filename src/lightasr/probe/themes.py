"""What a sentence of the built-in corpus is about, as its grammar tells.

Features carry transcripts, not themes. But each theme has its own sentence patterns, so a sentence
is parsed: it is about the one theme that has a pattern for it. Greetings and farewells belong to no
theme, and what two themes may say tells neither.
"""

from __future__ import annotations

import re
from functools import cache

from lightasr.data.sample.themes import SLOTS, THEMES

# A slot, which may be numbered; a sign of a choice; a word.
_TOKEN = re.compile(r"\{([a-z]+)\d*\}|([(|)])|([^\s(){}|]+)")


def theme_of(text: str) -> str | None:
    """The theme of a transcript as the corpus spells it; None where its words do not tell."""
    spaced = "".join(f"{word} " for word in text.split())
    found = [theme for theme in THEMES if _sentences(theme).fullmatch(spaced)]
    return found[0] if len(found) == 1 else None


@cache
def _sentences(theme: str) -> re.Pattern[str]:
    """All that can be said about it, with a space after each word."""
    return re.compile("|".join(map(_expression, THEMES[theme])))


def _expression(pattern: str) -> str:
    """A pattern of the grammar as a regular expression.

    As each word brings its own space, parts may be empty without leaving two in a row.
    """
    return "".join(map(_piece, _TOKEN.finditer(pattern)))


def _piece(token: re.Match[str]) -> str:
    slot, sign, word = token.groups()
    if slot:
        return _slot(slot)
    if sign:
        return "(?:" if sign == "(" else sign
    return f"{re.escape(word)} "


@cache
def _slot(name: str) -> str:
    return f"(?:{'|'.join(map(_expression, SLOTS[name]))})"
