"""NIST's matched-pairs test of sentence segments (MAPSSWE): do two systems differ in word errors?

Words of an utterance do not err independently, so the test counts in segments that do: between
segments lie at least two words in a row that both systems got right (Gillick & Cox 1989). With
Z the errors of A less those of B in a segment, over the n segments with an error of either,

    W = mean(Z) / (sd(Z) / sqrt(n)),    p = P(|N| >= |W|),  N normal,  sd with divisor n - 1.

Alignment and segments are those of NIST's `sclite` and `sc_stats`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lightasr.score.distributions import normal_p

SUBSTITUTION, INSERTION, DELETION = 4, 3, 3
GOOD_WORDS = 2
ENOUGH_SEGMENTS = 50
"""From where Gillick & Cox hold the normal approximation to be good."""


@dataclass(frozen=True)
class WordErrors:
    """Where a hypothesis errs, by position in the reference of n words."""

    wrong: list[bool]
    """Of each reference word: substituted or deleted (n)."""
    inserted: list[int]
    """Words inserted before each reference word, and after the last (n + 1)."""


@dataclass(frozen=True)
class Segment:
    """A stretch in which at least one system errs."""

    errors_a: int
    errors_b: int


@dataclass(frozen=True)
class SegmentTest:
    """The outcome of the test."""

    segments: int
    a_better: int
    b_better: int
    errors_a: int
    errors_b: int
    mean: float
    """Of the errors of A less those of B in a segment."""
    sd: float | None
    """None with one segment."""
    z: float | None
    """W of the equation; positive where A errs more; None where it is not defined."""
    p: float | None

    @property
    def rough(self) -> bool:
        """Whether there are too few segments for the normal approximation."""
        return self.segments < ENOUGH_SEGMENTS


def matched_pairs_test(decoded_a: pd.DataFrame, decoded_b: pd.DataFrame) -> SegmentTest:
    """The test over two tables of the same utterances in the same order."""
    found = [
        segment
        for reference, a, b in zip(
            decoded_a["reference"], decoded_a["hypothesis"], decoded_b["hypothesis"], strict=True
        )
        for segment in utterance_segments(
            word_errors(reference.split(), a.split()), word_errors(reference.split(), b.split())
        )
    ]
    return segment_test(found)


def segment_test(segments: Sequence[Segment]) -> SegmentTest:
    """The statistic; systems that never differ have p = 1."""
    differences = [segment.errors_a - segment.errors_b for segment in segments]
    count = len(differences)
    mean = statistics.fmean(differences) if count else 0.0
    sd = statistics.stdev(differences) if count > 1 else None
    z = p = None
    if sd:
        z = mean / (sd / count**0.5)
        p = normal_p(z)
    elif not any(differences):
        z, p = 0.0, 1.0
    return SegmentTest(
        segments=count,
        a_better=sum(difference < 0 for difference in differences),
        b_better=sum(difference > 0 for difference in differences),
        errors_a=sum(segment.errors_a for segment in segments),
        errors_b=sum(segment.errors_b for segment in segments),
        mean=mean,
        sd=sd,
        z=z,
        p=p,
    )


def utterance_segments(a: WordErrors, b: WordErrors) -> Iterator[Segment]:
    """Cut an utterance wherever both systems got enough words in a row right."""
    errors_a = errors_b = good = 0
    steps = zip(a.inserted, b.inserted, [*a.wrong, False], [*b.wrong, False], strict=True)
    for inserted_a, inserted_b, wrong_a, wrong_b in steps:
        errors_a += inserted_a + wrong_a
        errors_b += inserted_b + wrong_b
        if inserted_a or inserted_b:
            good = 0
        good = 0 if wrong_a or wrong_b else good + 1
        if good >= GOOD_WORDS and (errors_a or errors_b):
            yield Segment(errors_a, errors_b)
            errors_a = errors_b = 0
    if errors_a or errors_b:
        yield Segment(errors_a, errors_b)


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> WordErrors:
    """Align as `sclite` does: a substitution costs 4, an insertion or a deletion 3.

    Of equally cheap ways it takes, from the end, the diagonal before an insertion, and that before
    a deletion.
    """
    words = len(reference)
    wrong, inserted = [False] * words, [0] * (words + 1)
    if list(reference) == list(hypothesis):
        return WordErrors(wrong, inserted)
    costs = _costs(reference, hypothesis)
    row, column = words, len(hypothesis)
    while row or column:
        cost = costs[row][column]
        differs = bool(row and column) and reference[row - 1] != hypothesis[column - 1]
        if row and column and cost == costs[row - 1][column - 1] + SUBSTITUTION * differs:
            row, column = row - 1, column - 1
            wrong[row] = differs
        elif column and cost == costs[row][column - 1] + INSERTION:
            column -= 1
            inserted[row] += 1
        else:
            row -= 1
            wrong[row] = True
    return WordErrors(wrong, inserted)


def _costs(reference: Sequence[str], hypothesis: Sequence[str]) -> list[list[int]]:
    """The cheapest alignment of every beginning of one with every beginning of the other."""
    numbers = {word: number for number, word in enumerate({*reference, *hypothesis})}
    heard = np.array([numbers[word] for word in hypothesis], dtype=np.int64)
    insertions = INSERTION * np.arange(len(hypothesis) + 1)
    costs = np.empty((len(reference) + 1, len(hypothesis) + 1), dtype=np.int64)
    costs[0] = insertions
    for row, word in enumerate(reference, start=1):
        above = costs[row - 1]
        best = above + DELETION
        diagonal = above[:-1] + SUBSTITUTION * (heard != numbers[word])
        np.minimum(best[1:], diagonal, out=best[1:])
        # An insertion continues the best cell to the left: a running minimum, less what they cost.
        costs[row] = np.minimum.accumulate(best - insertions) + insertions
    rows: list[list[int]] = costs.tolist()
    return rows
