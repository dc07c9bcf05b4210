"""Mixes two n-grams into one whose probabilities are weighted sums, with the weight that fits best.

The mix holds every n-gram of either model; its probability is that of both, backed off where one of
them lacks it. The back-off weights are computed anew, so that what follows any history sums to one.
(SRILM's `ngram -mix-lm` does the same.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from lightasr.lm.arpa import UNKNOWN, Arpa, NGrams
from lightasr.lm.lookup import ROOT, Tables, score
from lightasr.lm.tables import BEGIN, END, NGram, build, ngram_of

Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]

STEPS = 10_000
CONVERGED = 1.0e-7
# Probability left to words that a history is not seen with; where rounding leaves none.
LEAST_LEFT = 1.0e-12
LOWEST = -99.0  # logarithm of zero, as in ARPA files
IN_MEMORY = Path("the mixed model")


def fit_weight(first: Arpa, second: Arpa, sentences: Iterable[Sequence[str]]) -> float:
    """The weight of the first model that makes sentences likeliest, by expectation maximisation.

    Words that neither model knows are left out.
    """
    said = [list(sentence) for sentence in sentences]
    p_first, p_second = (
        token_probabilities(ngram_of(model, IN_MEMORY), said) for model in (first, second)
    )
    known = (p_first > 0) | (p_second > 0)
    p_first, p_second = p_first[known], p_second[known]
    weight = 0.5
    for _ in range(STEPS):
        share = weight * p_first / (weight * p_first + (1 - weight) * p_second)
        before, weight = weight, float(share.mean()) if len(share) else weight
        if abs(weight - before) < CONVERGED:
            break
    return weight


def token_probabilities(model: NGram, sentences: Iterable[Sequence[str]]) -> Doubles:
    """Of each word and each end of a sentence; 0 for a word that the model does not know."""
    found = []
    for sentence in sentences:
        words = [*sentence, END]
        numbers = np.array([model.number(word) for word in words], np.int32)
        logp = _score_each(model.tables, model.start, numbers)
        known = numbers != model.unknown
        found.append(np.where(known, 10.0**logp, 0.0))
    return np.concatenate(found) if found else np.zeros(0)


def interpolate(first: Arpa, second: Arpa, weight: float) -> Arpa:
    """`weight` times the first model and the rest of the second."""
    if weight in {0.0, 1.0}:
        return first if weight else second
    first, second = _same_unknown(first), _same_unknown(second)
    words = list(dict.fromkeys([*first.words, *second.words]))
    numbers = {word: number for number, word in enumerate(words)}
    sources = [_Source.of(first, numbers, weight), _Source.of(second, numbers, 1 - weight)]
    begin = numbers.get(BEGIN, -1)
    orders: list[NGrams] = []
    for order in range(1, max(len(first.orders), len(second.orders)) + 1):
        rows = _union([source.rows[order - 1] for source in sources if order <= len(source.rows)])
        p = sum((source.weighted(rows) for source in sources), start=np.zeros(len(rows)))
        predicted = rows[:, -1] != begin
        if order == 1:
            p /= p[predicted].sum()
            p[~predicted] = 1.0
        with np.errstate(divide="ignore"):
            logp = np.maximum(np.log10(p), LOWEST).astype(np.float32)
        if order > 1:
            orders[-1] = _with_backoffs(words, orders, rows, logp, predicted)
        orders.append(NGrams(rows, logp, np.zeros(len(rows), np.float32)))
    return Arpa(words, orders)


@dataclass(frozen=True)
class _Source:
    """One of the models, asked in the numbers of the mix."""

    tables: Tables
    weight: float
    own: Ints
    """The model's numbers of the mix's words; `<unk>` for those it does not know."""
    known: NDArray[np.bool_]
    rows: list[Ints]
    """Its n-grams of each order, in the numbers of the mix."""

    @classmethod
    def of(cls, model: Arpa, numbers: dict[str, int], weight: float) -> _Source:
        mixed = np.array([numbers[word] for word in model.words], np.int32)
        ngram = ngram_of(model, IN_MEMORY)
        own, known = (
            np.full(len(numbers), ngram.unknown, np.int32),
            np.zeros(len(numbers), np.bool_),
        )
        own[mixed], known[mixed] = np.arange(len(mixed), dtype=np.int32), True
        rows = [mixed[ngrams.words] for ngrams in model.orders]
        return cls(ngram.tables, weight, own, known, rows)

    def weighted(self, rows: Ints) -> Doubles:
        """Its part in the probability of each row's last word after those before it."""
        logp = _score_last(self.tables, self.own[rows])
        return np.where(self.known[rows[:, -1]], self.weight * 10.0**logp, 0.0)


def _with_backoffs(
    words: list[str], orders: list[NGrams], rows: Ints, logp: NDArray[Any], predicted: Any
) -> NGrams:
    """The highest order so far, with back-off weights that its continuations `rows` leave."""
    shorter = orders[-1]
    lower = build(Arpa(words, orders), IN_MEMORY)
    history = _histories(rows, shorter.words)
    seen = np.where(predicted, 10.0 ** logp.astype(np.float64), 0.0)
    backed_off = np.where(predicted, 10.0 ** _score_last(lower, rows[:, 1:]), 0.0)
    count = len(shorter.logp)
    left = 1.0 - np.bincount(history, seen, count)
    left_below = 1.0 - np.bincount(history, backed_off, count)
    # A history that is seen with every word leaves nothing to share out.
    some = left_below > LEAST_LEFT
    weights = np.zeros(count)
    weights[some] = np.log10(np.maximum(left[some], LEAST_LEFT) / left_below[some])
    weights[np.bincount(history, minlength=count) == 0] = 0.0
    return replace(shorter, backoff=weights.astype(np.float32))


def _same_unknown(model: Arpa) -> Arpa:
    """The model with `<unk>` for what some tools write as `<UNK>`."""
    if UNKNOWN in model.words:
        return model
    return replace(model, words=[UNKNOWN if w == UNKNOWN.upper() else w for w in model.words])


def _union(parts: list[Ints]) -> Ints:
    """All rows once, sorted by their first number, then by the next."""
    rows = np.concatenate(parts)
    rows = rows[np.lexsort(rows.T[::-1])]
    new = np.ones(len(rows), np.bool_)
    new[1:] = (np.diff(rows, axis=0) != 0).any(axis=1)
    return np.ascontiguousarray(rows[new])


# --- compiled -------------------------------------------------------------------------------------


@numba.njit(cache=True)
def _score_last(tables: Any, rows: Ints) -> Doubles:
    """Logarithm of each row's last word after those before it."""
    count, order = rows.shape
    logps = np.zeros(count, np.float64)
    for row in range(count):
        state = ROOT
        for place in range(order - 1):
            _, state = score(tables, state, rows[row, place])
        logps[row], _ = score(tables, state, rows[row, order - 1])
    return logps


@numba.njit(cache=True)
def _score_each(tables: Any, state: int, words: Ints) -> Doubles:
    """Logarithm of each word of a sentence."""
    logps = np.zeros(len(words), np.float64)
    for place in range(len(words)):
        logps[place], state = score(tables, state, words[place])
    return logps


@numba.njit(cache=True)
def _histories(rows: Ints, shorter: Ints) -> Ints:
    """For each row the number of all but its last word among sorted shorter rows."""
    found = np.zeros(len(rows), np.int32)
    at = 0
    for row in range(len(rows)):
        place = 0
        while place < shorter.shape[1]:
            if rows[row, place] == shorter[at, place]:
                place += 1
            else:
                at, place = at + 1, 0
        found[row] = at
    return found
