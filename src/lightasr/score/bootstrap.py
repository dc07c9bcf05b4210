"""Uncertainty of error rates by resampling speakers: intervals, paired tests, Holm's correction.

Utterances of one speaker share voice and channel, so they do not err independently: the blocks
that are resampled are speakers. Resampling utterances gives intervals that are far too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightasr.errors import LightasrError

CONFIDENCE = 0.95


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


def speaker_interval(
    errors: pd.DataFrame, samples: int, seed: int, rate: Rate = WER
) -> Interval | None:
    """The 95 % percentile interval of a rate; None with one speaker only."""
    totals = _speaker_totals(errors, rate)
    if len(totals) < 2:
        return None
    resampled = _resampled_rates(totals, _draws(len(totals), samples, seed))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(float(low), float(high))


def paired_bootstrap(
    errors_a: pd.DataFrame, errors_b: pd.DataFrame, samples: int, seed: int, rate: Rate = WER
) -> float | None:
    """The two-sided p-value that two systems have the same rate on the same speakers.

    Both systems see the same draws. The p-value is at least `smallest_p`, as a bootstrap over a
    handful of speakers would claim more than they can show. None with a single speaker.
    """
    totals_a, totals_b = _speaker_totals(errors_a, rate), _speaker_totals(errors_b, rate)
    if list(totals_a.index) != list(totals_b.index):
        odd = sorted(set(totals_a.index) ^ set(totals_b.index))
        raise LightasrError(
            f"a paired test needs the same speakers in both systems; only in one: {name_some(odd)}"
        )
    speakers = len(totals_a)
    if speakers < 2:
        return None
    draws = _draws(speakers, samples, seed)
    difference = _resampled_rates(totals_a, draws) - _resampled_rates(totals_b, draws)
    side = min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0))
    p_value = 2 * (side + 1) / (samples + 1)
    return float(min(1.0, max(p_value, smallest_p(speakers))))


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


def _draws(speakers: int, samples: int, seed: int) -> NDArray[np.int64]:
    """How often each speaker is drawn in each resample, shape (samples, speakers)."""
    uniform = np.full(speakers, 1.0 / speakers)
    return np.random.default_rng(seed).multinomial(speakers, uniform, size=samples)


def _resampled_rates(totals: pd.DataFrame, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    errors = draws @ totals["errors"].to_numpy()
    units = draws @ totals["units"].to_numpy()
    return np.asarray(errors / units, dtype=np.float64)
