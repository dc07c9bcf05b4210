"""How well a probe tells labels, and how much that varies over speakers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightasr.probe.tasks import Bools
from lightasr.score.bootstrap import Floats, Sampled, Totals

Counts = NDArray[np.int64]


class Score(NamedTuple):
    """A share, with its 95 % interval over speakers; None where there is one speaker only."""

    value: float
    low: float | None
    high: float | None


def accuracy(right_n: Bools, speakers: Sequence[str], samples: int, seed: int) -> Score:
    """Share of utterances told right."""
    names, at_n = np.unique(np.asarray(speakers), return_inverse=True)
    right = np.bincount(at_n, weights=right_n, minlength=len(names)).astype(np.int64)
    count = np.bincount(at_n, minlength=len(names)).astype(np.int64)
    if len(names) < 2:
        return Score(float(right.sum() / count.sum()), None, None)
    return _score(Totals(tuple(names), right[None], count[None]).sampled(samples, seed))


def mean_average_precision(
    scores_nc: Floats, said_nc: Bools, speakers: Sequence[str], samples: int, seed: int
) -> Score:
    """Average precision of each letter, the mean over letters.

    The resamples are those of speakers: an utterance counts as often as its speaker is drawn.
    """
    names, at_n = np.unique(np.asarray(speakers), return_inverse=True)
    whole = np.ones((1, len(names)), np.int64)
    if len(names) < 2:
        return Score(float(_precisions(scores_nc, said_nc, whole[:, at_n])[0]), None, None)
    left_out = 1 - np.eye(len(names), dtype=np.int64)
    uniform = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), uniform, size=samples)
    weights_rk = np.concatenate([whole, left_out, drawn])
    found_r = _precisions(scores_nc, said_nc, weights_rk[:, at_n])
    split = 1 + len(names)
    return _score(Sampled(float(found_r[0]), found_r[split:], found_r[1:split]))


def average_precision(scores_n: Floats, said_n: Bools, weights_rn: Counts) -> Floats:
    """(R,): precision at each utterance that has the letter, the mean over those.

    In each row of weights an utterance counts so often. Equal scores share the precision of all
    of them. nan where no utterance that counts has the letter.
    """
    order = np.argsort(-scores_n, kind="stable")
    falling_n, said_n, weights_rn = -scores_n[order], said_n[order], weights_rn[:, order]
    last_n = np.searchsorted(falling_n, falling_n, side="right") - 1
    hits_rn = weights_rn * said_n
    found_rn = np.cumsum(hits_rn, axis=1)[:, last_n]
    listed_rn = np.cumsum(weights_rn, axis=1)[:, last_n]
    hits_r = hits_rn.sum(axis=1)
    precision_rn = found_rn / np.maximum(listed_rn, 1)
    mean_r: Floats = (hits_rn * precision_rn).sum(axis=1) / np.where(hits_r, hits_r, np.nan)
    return mean_r


def _precisions(scores_nc: Floats, said_nc: Bools, weights_rn: Counts) -> Floats:
    """(R,): the mean over letters; in a resample without a letter, over the others."""
    found_cr = np.stack(
        [
            average_precision(scores_n, said_n, weights_rn)
            for scores_n, said_n in zip(scores_nc.T, said_nc.T, strict=True)
        ]
    )
    known_cr = np.isfinite(found_cr)
    total_r = np.where(known_cr, found_cr, 0).sum(axis=0)
    mean_r: Floats = total_r / np.maximum(known_cr.sum(axis=0), 1)
    return mean_r


def _score(sampled: Sampled) -> Score:
    """A share is never below 0 or above 1."""
    interval = sampled.student(least=0.0)
    return Score(sampled.value, interval.low, min(1.0, interval.high))
