"""Statistics of an encoder that need no labels, and which of them foretell error rates.

They are at hand as soon as a pretraining ends. Whether one is worth watching is a question of its
own: the note below a study's table puts each beside the WERs of the same pretrainings once they are
fine-tuned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightasr.errors import LightasrError
from lightasr.score.bootstrap import Floats, holm

RECEIPT = {
    "masked_loss": "dev_loss",
    "masked_accuracy": "dev_accuracy",
    "codes": "dev_codes",
    "guesses": "dev_guesses",
}
"""Statistics that a pretraining's receipt tells, and how it calls them."""
OF_OUTPUTS = {"rank": "dev_rank"}
"""What it tells that compares whatever the objectives."""
LEAST = 3
EXACT = 8  # pretrainings whose orders are all tried: 8! = 40,320
DRAWN = 20_000
ROUNDING = 1e-9


class Correlation(NamedTuple):
    """Of a statistic with WERs, over pretrainings."""

    statistic: str
    rho: float | None
    """Spearman's; -1: the higher the statistic, the lower the WER. None where one is constant."""
    p: float
    """Two-sided, of an order at random."""
    p_holm: float
    """The same, as one of several statistics that were looked at."""


def statistics(ranks: Sequence[float], pretrained: Path | None) -> dict[str, float]:
    """Effective rank of each layer's outputs; of a pretraining, too, how well it tells."""
    found = {f"rank_{layer}": rank for layer, rank in enumerate(ranks)}
    return found if pretrained is None else found | _told(pretrained / "run.json", RECEIPT)


def foretelling(wers: Mapping[Path, float]) -> list[Correlation]:
    """How what pretrainings tell of themselves goes with the WERs, by directory, that came of them.

    How well hidden frames are told compares only where the objectives are the same.
    """
    alike = len({_objective(pretrained / "config.json") for pretrained in wers}) == 1
    names = OF_OUTPUTS | RECEIPT if alike else OF_OUTPUTS
    told = [_told(pretrained / "run.json", names) for pretrained in wers]
    found = {name: [each[name] for each in told] for name in names}
    return rank_correlation(found, list(wers.values()))


def _objective(config: Path) -> str:
    try:
        return json.dumps(json.loads(config.read_text(encoding="utf-8"))["objective"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LightasrError(f"{config}: not the settings of a pretraining: {error!r}") from None


def _told(receipt: Path, names: Mapping[str, str]) -> dict[str, float]:
    try:
        tree = json.loads(receipt.read_text(encoding="utf-8"))
        return {name: float(tree[key]) for name, key in names.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LightasrError(f"{receipt}: not the receipt of a pretraining: {error!r}") from None


def rank_correlation(
    found: Mapping[str, Sequence[float]], wers: Sequence[float]
) -> list[Correlation]:
    """Of each statistic, one value a pretraining, with their WERs; the surest first.

    The p-value is the share of orders of the WERs that correlate as strongly: of all orders, or of
    some at random where there are more than eight pretrainings.
    """
    if len(wers) < LEAST:
        raise LightasrError(
            f"rank correlation: {len(wers)} pretrainings; of fewer than {LEAST} no order tells"
        )
    for name, values in found.items():
        if len(values) != len(wers):
            raise LightasrError(
                f"rank correlation: {len(values)} values of '{name}', but {len(wers)} WERs"
            )
    orders_rn = _orders(_standard(_ranks(wers)))
    pairs = {name: _correlation(values, wers, orders_rn) for name, values in found.items()}
    adjusted = holm([p for _, p in pairs.values()])
    correlations = [
        Correlation(name, rho, p, p_holm)
        for (name, (rho, p)), p_holm in zip(pairs.items(), adjusted, strict=True)
    ]
    return sorted(correlations, key=lambda each: (each.p, -abs(each.rho or 0.0)))


def _correlation(
    values: Sequence[float], wers: Sequence[float], orders_rn: Floats
) -> tuple[float | None, float]:
    values_n, wers_n = _standard(_ranks(values)), _standard(_ranks(wers))
    if not (values_n.any() and wers_n.any()):
        return None, 1.0
    rho = float(values_n @ wers_n)
    strong = int(np.count_nonzero(np.abs(orders_rn @ values_n) >= abs(rho) - ROUNDING))
    if len(wers) <= EXACT:
        return rho, strong / len(orders_rn)
    return rho, (1 + strong) / (1 + len(orders_rn))


def _orders(ranks_n: Floats) -> Floats:
    """(R, N): all orders of a few, or many of many."""
    if len(ranks_n) <= EXACT:
        orders_rn: Floats = np.array(list(permutations(ranks_n)))
        return orders_rn
    return np.random.default_rng(0).permuted(np.tile(ranks_n, (DRAWN, 1)), axis=1)


def _ranks(values: Sequence[float]) -> Floats:
    """1 is the lowest; equal values share the mean of their ranks."""
    if not all(map(math.isfinite, values)):
        raise LightasrError(f"rank correlation: not all of {list(values)} are numbers")
    _, at_n, counts_k = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    mean_k = np.cumsum(counts_k) - (counts_k - 1) / 2
    ranks_n: Floats = mean_k[at_n]
    return ranks_n


def _standard(ranks_n: Floats) -> Floats:
    """With mean 0 and length 1; zeros where all are equal."""
    centred_n = ranks_n - ranks_n.mean()
    length = float(np.sqrt((centred_n**2).sum()))
    standard_n: Floats = centred_n / (length or 1.0)
    return standard_n
