"""Turns the sentence patterns of `themes` into callers' turns and whole dialogues."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from lightasr.data.sample.themes import CLOSINGS, OPENINGS, SLOTS, THEMES

SENTENCE_WORDS = range(3, 17)
DIALOGUE_SENTENCES = range(4, 9)

# A slot `{name}` or a choice `(A|B)` without slots; replaced until none is left.
_HOLE = re.compile(r"\{(\w+)\}|\(([^(){}]*)\)")

# How often a pattern is drawn again for a sentence the caller of this module accepts.
_ATTEMPTS = 40

_QUESTION = re.compile(
    r"(ARE|CAN|COULD|DO|DOES|HAS|HOW|IS|MAY|MUST|SHALL|WHAT|WHAT'S|WHEN|WHERE|WHICH|WHO|WHY|WILL) "
)


@dataclass(frozen=True)
class Dialogue:
    """What one caller says in one call, in order."""

    theme: str
    sentences: tuple[str, ...]


def expand(pattern: str, bound: dict[str, str], rng: Random) -> str:
    """Fill every hole of a pattern.

    A slot that ends in a digit keeps its value for the whole dialogue: it is looked up in `bound`
    and added there, so that a caller who lost an umbrella goes on speaking of an umbrella.
    """

    def fill(hole: re.Match[str]) -> str:
        slot: str | None = hole[1]
        if slot is None:
            return rng.choice(str(hole[2]).split("|"))
        if slot in SLOTS:
            return rng.choice(SLOTS[slot])
        if slot not in bound:
            bound[slot] = expand(rng.choice(SLOTS[slot.rstrip("0123456789")]), bound, rng)
        return bound[slot]

    while _HOLE.search(pattern):
        pattern = _HOLE.sub(fill, pattern)
    return " ".join(pattern.split())


def draw_dialogue(theme: str, accept: Callable[[str], bool], rng: Random) -> Dialogue:
    """Draw a dialogue of which every sentence is accepted, an opening first and a closing last."""
    while True:
        bound: dict[str, str] = {}
        length = rng.choice(DIALOGUE_SENTENCES)
        body = list(THEMES[theme])
        rng.shuffle(body)
        sentences: list[str] = []
        for pattern in [rng.choice(OPENINGS), *body]:
            if len(sentences) == length - 1:
                break
            _append(sentences, pattern, bound, accept, rng)
        _append(sentences, rng.choice(CLOSINGS), bound, accept, rng)
        if len(sentences) in DIALOGUE_SENTENCES:
            return Dialogue(theme, tuple(sentences))


def _append(
    sentences: list[str],
    pattern: str,
    bound: dict[str, str],
    accept: Callable[[str], bool],
    rng: Random,
) -> None:
    """Add one accepted expansion of the pattern, or nothing where it has none to give."""
    for _ in range(_ATTEMPTS):
        tried = dict(bound)
        sentence = expand(pattern, tried, rng)
        if len(sentence.split()) not in SENTENCE_WORDS or sentence in sentences:
            continue
        if accept(sentence):
            bound.update(tried)
            sentences.append(sentence)
            return


def spoken_form(sentence: str) -> str:
    """The transcript as the synthesiser should read it: a question gets its rising tone."""
    mark = "?" if _QUESTION.match(sentence) else "."
    return sentence.lower() + mark
