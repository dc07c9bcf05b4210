"""Uncertainty of error rates over speakers: intervals, paired tests, Holm's correction.

Utterances of one speaker share voice and channel, so they do not err independently: the blocks
that are resampled are speakers. Resampling utterances gives intervals that are far too narrow.
Where a system was trained under several seeds, the seeds are resampled first, then the speakers.
The resamples give the standard error; the interval is Student's t, as percentiles of resamples are
too narrow where speakers are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightasr.errors import LightasrError
from lightasr.score.distributions import student_quantile, student_within

CONFIDENCE = 0.95
NORMAL = NormalDist()
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Rate:
    """An error rate as a ratio of columns of a table of utterance errors."""

    errors: tuple[str, ...]
    units: str

    def of(self, errors: pd.DataFrame) -> float:
        """The rate of the whole corpus, as a fraction."""
        return float(errors[list(self.errors)].to_numpy().sum() / errors[self.units].sum())


WER = Rate(("substitutions", "insertions", "deletions"), "words")
CER = Rate(("char_errors",), "chars")


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Totals:
    """Errors and units of each speaker under each seed, both of shape (seeds, speakers)."""

    speakers: tuple[str, ...]
    errors: Counts
    units: Counts

    @classmethod
    def of(cls, by_seed: Sequence[pd.DataFrame], rate: Rate) -> Totals:
        """Of one table of utterance errors a seed, over the same speakers."""
        tables = [_speaker_totals(errors, rate) for errors in by_seed]
        first = tables[0]
        for other in tables[1:]:
            check_same_speakers(tuple(first.index), tuple(other.index))
        errors = np.stack([table["errors"].to_numpy() for table in tables])
        units = np.stack([table["units"].to_numpy() for table in tables])
        return cls(tuple(first.index), errors, units)

    def sampled(self, samples: int, seed: int, stream: int = 0) -> Sampled:
        """The rate and how it varies.

        The same `seed` draws the same speakers for every system; `stream` keeps the seeds that are
        drawn for one system apart from those of another, as seed 1 of both has nothing in common.
        """
        seeds, speakers = self.errors.shape
        chosen = _seed_weights(seeds, samples, (seed, stream))
        drawn = _draws(speakers, samples, (seed,))
        errors = ((chosen @ self.errors) * drawn).sum(axis=1)
        units = ((chosen @ self.units) * drawn).sum(axis=1)
        all_errors, all_units = self.errors.sum(axis=0), self.units.sum(axis=0)
        return Sampled(
            float(all_errors.sum() / all_units.sum()),
            errors / units,
            (all_errors.sum() - all_errors) / (all_units.sum() - all_units),
        )


@dataclass(frozen=True)
class Sampled:
    """A rate, or a difference of two, with what it becomes over other speakers."""

    value: float
    resampled: Floats
    """In each resample of seeds and speakers."""
    left_out: Floats
    """Without each of the speakers; seeds are not left out."""

    def __sub__(self, other: Sampled) -> Sampled:
        """The difference of two systems over the same draws of speakers."""
        return Sampled(
            self.value - other.value,
            self.resampled - other.resampled,
            self.left_out - other.left_out,
        )

    def student(self, least: float = -inf) -> Interval:
        """Student's t over K speakers: value -+ t(K - 1) times the standard error.

        A rate is never below its `least`.
        """
        reach = student_quantile(CONFIDENCE, self.speakers - 1) * self.standard_error
        return Interval(max(least, self.value - reach), self.value + reach)

    def student_p(self) -> float:
        """Two-sided, of the value being 0: P(|T| >= |value| / standard error), T with K - 1.

        It is at least `smallest_p`, as a handful of speakers who agree by chance would claim more
        than they can show.
        """
        if self.value == 0:
            return 1.0
        error, freedom = self.standard_error, self.speakers - 1
        p_value = 1 - student_within(abs(self.value) / error, freedom) if error else 0.0
        return max(p_value, smallest_p(self.speakers))

    @property
    def standard_error(self) -> float:
        """Standard deviation of the resamples, times sqrt(K / (K - 1)).

        K of K speakers, drawn with replacement, vary (K - 1) / K times as much as K new ones.
        """
        return float(self.resampled.std()) * (self.speakers / (self.speakers - 1)) ** 0.5

    @property
    def speakers(self) -> int:
        return len(self.left_out)

    def percentile(self) -> Interval:
        """The middle 95 % of the resamples."""
        tail = (1 - CONFIDENCE) / 2
        return self._quantiles(tail, 1 - tail)

    def bca(self) -> Interval:
        """Bias-corrected and accelerated (Efron 1987): the quantiles a of the resamples, where

            a = F(z0 + (z0 + z) / (1 - c (z0 + z))),  z = F^-1(0.025) and F^-1(0.975),

        F being the normal distribution, z0 = F^-1(share of resamples below the value), and
        c = sum d^3 / (6 (sum d^2)^1.5) of d = mean(left_out) - left_out.
        """
        deviations = self.left_out.mean() - self.left_out
        spread = float((deviations**2).sum())
        if spread == 0:
            return Interval(self.value, self.value)
        acceleration = float((deviations**3).sum()) / (6 * spread**1.5)
        below = float(np.count_nonzero(self.resampled < self.value))
        below += np.count_nonzero(self.resampled == self.value) / 2
        samples = len(self.resampled)
        bias = NORMAL.inv_cdf(min(max(below, 0.5), samples - 0.5) / samples)
        tail = NORMAL.inv_cdf((1 + CONFIDENCE) / 2)
        low, high = (
            NORMAL.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))) for z in (-tail, tail)
        )
        return self._quantiles(low, high)

    def p_value(self) -> float:
        """Two-sided, of the value being 0: 2 (1 + resamples on the rarer side of 0) / (1 + all).

        It is at least `smallest_p`, too.
        """
        side = min(np.count_nonzero(self.resampled <= 0), np.count_nonzero(self.resampled >= 0))
        p_value = 2 * (side + 1) / (len(self.resampled) + 1)
        return float(min(1.0, max(p_value, smallest_p(self.speakers))))

    def _quantiles(self, low: float, high: float) -> Interval:
        found = np.percentile(self.resampled, [100 * low, 100 * high])
        return Interval(float(found[0]), float(found[1]))


def sampled_rate(
    by_seed: Sequence[pd.DataFrame], samples: int, seed: int, rate: Rate = WER
) -> Sampled | None:
    """A system's rate, from a table of utterance errors a seed; None with one speaker only."""
    totals = Totals.of(by_seed, rate)
    return totals.sampled(samples, seed) if len(totals.speakers) > 1 else None


def sampled_difference(
    by_seed_a: Sequence[pd.DataFrame],
    by_seed_b: Sequence[pd.DataFrame],
    samples: int,
    seed: int,
    rate: Rate = WER,
) -> Sampled | None:
    """The rate of A less that of B on the same speakers; None with one speaker only."""
    a, b = Totals.of(by_seed_a, rate), Totals.of(by_seed_b, rate)
    check_same_speakers(a.speakers, b.speakers)
    if len(a.speakers) < 2:
        return None
    return a.sampled(samples, seed, stream=1) - b.sampled(samples, seed, stream=2)


def check_same_speakers(first: Sequence[str], second: Sequence[str]) -> None:
    """Raise unless two systems, or two seeds of one, were tested on the same speakers."""
    if tuple(first) != tuple(second):
        odd = sorted(set(first) ^ set(second))
        raise LightasrError(
            f"a paired test needs the same speakers in both systems; only in one: {name_some(odd)}"
        )


def smallest_p(speakers: int) -> float:
    """The smallest two-sided p-value of the exact test that swaps the systems of each speaker."""
    return float(2.0 ** (1 - speakers))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given."""
    count = len(p_values)
    order = sorted(range(count), key=lambda index: p_values[index])
    adjusted = [0.0] * count
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def name_some(names: Sequence[str], limit: int = 5) -> str:
    """The first few names and how many more there are, for a message."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _speaker_totals(errors: pd.DataFrame, rate: Rate) -> pd.DataFrame:
    """Errors and units of each speaker, sorted by speaker."""
    per_utterance = pd.DataFrame(
        {
            "speaker": errors["speaker"].astype(str),
            "errors": errors[list(rate.errors)].sum(axis=1),
            "units": errors[rate.units],
        }
    )
    return per_utterance.groupby("speaker", sort=True).sum()


def _seed_weights(seeds: int, samples: int, seed: tuple[int, ...]) -> Floats:
    """How much each training seed counts in each resample, shape (samples, seeds).

    Means over S draws of S seeds vary (S - 1) / S times as much as means over S new seeds: with the
    two or three seeds of a study far too little, so the weights are stretched around 1.
    """
    if seeds == 1:
        return np.ones((samples, 1))
    stretch = (seeds / (seeds - 1)) ** 0.5
    weights: Floats = 1 + stretch * (_draws(seeds, samples, seed) - 1)
    return weights


@lru_cache(maxsize=8)
def _draws(count: int, samples: int, seed: tuple[int, ...]) -> Counts:
    """How often each of `count` is drawn in each resample, shape (samples, count)."""
    uniform = np.full(count, 1.0 / count)
    return np.random.default_rng(seed).multinomial(count, uniform, size=samples)
