"""What probes are asked: who speaks, what a call is about, which letters are said."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightasr.data.batches import Utterance
from lightasr.errors import LightasrError
from lightasr.probe.themes import theme_of
from lightasr.schema import ProbeTask

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
EVERY = 4  # one of so many utterances, or speakers, is set apart
Key = TypeVar("Key", bound=Hashable)


class Rows(NamedTuple):
    """Some of the utterances, and their labels."""

    at: Ints
    """Which they are."""
    labels: Ints | Bools
    """(N,) the class of each, or (N, C) which of C letters are said in it."""

    def taken(self, chosen: Ints | Bools) -> Rows:
        return Rows(self.at[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Question:
    """What is asked of utterances: labels to learn from, and labels to be told."""

    task: ProbeTask
    names: tuple[str, ...]
    """Of the classes, or the letters."""
    fit: Rows
    tune: Rows
    """Set apart from `fit`, for the strength of the penalty."""
    tests: dict[str, Rows]
    """By part."""

    @property
    def learnt(self) -> Rows:
        """All that a probe learns from in the end."""
        at = np.concatenate([self.fit.at, self.tune.at])
        return Rows(at, np.concatenate([self.fit.labels, self.tune.labels]))


def ask(
    task: ProbeTask, learnt: Sequence[Utterance], tests: Mapping[str, Sequence[Utterance]]
) -> Question:
    """A question about utterances that are numbered: the learnt ones, then those of each test."""
    return QUESTIONS[task](learnt, tests)


def ask_speaker(learnt: Sequence[Utterance], tests: Mapping[str, Sequence[Utterance]]) -> Question:
    """Who speaks. Speakers of the training parts, by other utterances of theirs."""
    groups = grouped(range(len(learnt)), lambda row: learnt[row].speaker)
    kept = {name: rows for name, rows in groups.items() if len(rows) >= 3}
    if len(kept) < 2:
        raise LightasrError(
            f"probe.tasks: speaker: {len(kept)} speakers of the training parts have three "
            "utterances or more; two are needed"
        )
    names = tuple(sorted(kept))
    classes = {name: number for number, name in enumerate(names)}
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for name in names:
        for place, row in enumerate(sorted(kept[name], key=lambda row: lot(learnt[row].id))):
            places[min(place % EVERY, 2)].append((row, classes[name]))
    test, tune, fit = (_rows(places[role]) for role in range(3))
    return Question("speaker", names, fit, tune, {"training": test})


def ask_theme(learnt: Sequence[Utterance], tests: Mapping[str, Sequence[Utterance]]) -> Question:
    """What the call is about. Speakers and sentences of the test parts are new."""
    themes = [theme_of(utterance.text) for utterance in chain(learnt, *tests.values())]
    known = [row for row in range(len(learnt)) if themes[row] is not None]
    if not known:
        raise LightasrError(
            f"probe.tasks: theme: none of {len(learnt)} training utterances is a sentence of the "
            "built-in corpus's grammar; only that corpus has themes"
        )
    fit, tune = by_speaker(learnt, known)
    names = tuple(sorted({str(themes[row]) for row in fit}))
    if len(names) < 2:
        raise LightasrError(f"probe.tasks: theme: all that is learnt from is about {names[0]}")
    classes = {name: number for number, name in enumerate(names)}

    def rows_of(part: str, rows: Iterable[int]) -> Rows:
        """What is about a theme that is not learnt cannot be told."""
        found = [(row, classes[theme]) for row in rows if (theme := themes[row]) in classes]
        if not found:
            raise LightasrError(
                f"probe.tasks: theme: nothing that {part} say is about a theme that is learnt; the "
                "corpus is too small for it"
            )
        return _rows(found)

    return Question(
        "theme",
        names,
        rows_of("training speakers", fit),
        rows_of("training speakers set apart for the penalty", tune),
        {part: rows_of(f"speakers of {part}", rows) for part, rows in _places(learnt, tests)},
    )


def ask_characters(
    learnt: Sequence[Utterance], tests: Mapping[str, Sequence[Utterance]]
) -> Question:
    """Which letters are said, anywhere in an utterance.

    A letter is asked for where some utterances to learn from have it, and some do not; those that
    occur in all of a test part's utterances, or in none, are left out when it is scored.
    """
    said = [frozenset(utterance.text) for utterance in chain(learnt, *tests.values())]
    fit, tune = by_speaker(learnt, range(len(learnt)))
    letters = sorted({letter for row in fit for letter in said[row] if letter.isalpha()})
    names = tuple(letter for letter in letters if any(letter not in said[row] for row in fit))
    if not names:
        raise LightasrError(
            f"probe.tasks: characters: no letter is in some of {len(fit)} training utterances and "
            "not in others"
        )

    def rows_of(rows: Iterable[int]) -> Rows:
        at = np.array(list(rows), np.int64)
        return Rows(at, np.array([[name in said[row] for name in names] for row in at]))

    found = {part: rows_of(rows) for part, rows in _places(learnt, tests)}
    for part, rows in found.items():
        if not varies(rows.labels).any():
            raise LightasrError(
                f"probe.tasks: characters: no letter is in some utterances of {part} and not in "
                "others"
            )
    return Question("characters", names, rows_of(fit), rows_of(tune), found)


QUESTIONS: dict[
    ProbeTask, Callable[[Sequence[Utterance], Mapping[str, Sequence[Utterance]]], Question]
] = {"speaker": ask_speaker, "theme": ask_theme, "characters": ask_characters}


# --- who learns, who is asked ---


def evenly(utterances: Sequence[Utterance], count: int) -> list[Utterance]:
    """At most `count` of them, one of each speaker in turn, fewer being part of more."""
    ordered = sorted(utterances, key=lambda utterance: lot(utterance.id))
    groups = grouped(ordered, lambda utterance: utterance.speaker)
    turns = zip_longest(*(groups[speaker] for speaker in sorted(groups, key=lot)))
    return list(islice((each for each in chain(*turns) if each is not None), count))


def by_speaker(utterances: Sequence[Utterance], rows: Iterable[int]) -> tuple[list[int], list[int]]:
    """Rows to learn from, and those of every fourth speaker."""
    groups = grouped(rows, lambda row: utterances[row].speaker)
    speakers = sorted(groups, key=lot)
    if len(speakers) < 2:
        raise LightasrError(
            f"probe: {len(speakers)} speaker in the training parts; the strength of the penalty is "
            "chosen by others than are learnt from, so two are needed"
        )
    apart = set(speakers[::EVERY])
    fit = [row for speaker in speakers if speaker not in apart for row in groups[speaker]]
    return fit, [row for speaker in speakers if speaker in apart for row in groups[speaker]]


def lot(name: str) -> bytes:
    """By which names are ordered as if at random, the same on every machine."""
    return hashlib.sha256(name.encode()).digest()


Item = TypeVar("Item")


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def varies(labels: Ints | Bools) -> Bools:
    """(C,): which letters are in some utterances and not in others."""
    some_c: Bools = np.any(labels, axis=0)
    return some_c & ~np.all(labels, axis=0)


def _places(
    learnt: Sequence[Utterance], tests: Mapping[str, Sequence[Utterance]]
) -> Iterable[tuple[str, range]]:
    """Where the utterances of each test part are."""
    first = len(learnt)
    for part, utterances in tests.items():
        yield part, range(first, first + len(utterances))
        first += len(utterances)


def _rows(labelled: Sequence[tuple[int, int]]) -> Rows:
    at, labels = np.array(labelled, np.int64).T
    return Rows(at, labels)
