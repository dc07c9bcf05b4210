"""Linear probes: logistic regression with an L2 penalty, in float64, to its one optimum.

    mean over rows of -log p(label | x)  +  l2 / 2 |W|^2,    x standardised, the bias not penalised

Labels are one class a row (softmax), or several yes or no (a sigmoid each, their nats summed). The
function is convex, so that L-BFGS finds the same probe from wherever it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightasr.errors import LightasrError

MOST_STEPS = 3000
SMALL_GRADIENT = 1e-7
SAME = 1e-15
"""Nats by which a step must change the function, or rounding is all that is left to gain."""
GAP = 1e-7
"""Nats that a probe may be worse than the best one."""
CONSTANT = 1e-5
"""Share of its mean by which a number that says nothing may vary: rounding does not count."""


@dataclass(frozen=True)
class Probe:
    """Linear scores of classes."""

    mean_d: Tensor
    std_d: Tensor
    weight_dc: Tensor
    bias_c: Tensor

    def scores(self, x_nd: Tensor) -> Tensor:
        """(N, C) logits."""
        return (x_nd - self.mean_d) / self.std_d @ self.weight_dc + self.bias_c


def fit(x_nd: Tensor, labels: Tensor, l2: float, start: Probe | None = None) -> Probe:
    """The probe of rows (N, D) and their labels, (N,) classes or (N, C) yes or no.

    Each class occurs. To `start` near the optimum saves time.
    """
    mean_d, std_d = x_nd.mean(0), x_nd.std(0, correction=0)
    std_d = std_d.where(std_d > CONSTANT * mean_d.abs(), 1.0)
    x_nd = (x_nd - mean_d) / std_d
    classes = labels.shape[1] if labels.dim() == 2 else int(labels.max()) + 1
    weight_dc, bias_c = x_nd.new_zeros(x_nd.shape[1], classes), x_nd.new_zeros(classes)
    if start is not None:
        weight_dc, bias_c = start.weight_dc.clone(), start.bias_c.clone()
    weight_dc.requires_grad_()
    bias_c.requires_grad_()
    search = torch.optim.LBFGS(
        [weight_dc, bias_c],
        max_iter=MOST_STEPS,
        max_eval=10 * MOST_STEPS,
        tolerance_grad=SMALL_GRADIENT,
        tolerance_change=SAME,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        search.zero_grad()
        value = nats(x_nd @ weight_dc + bias_c, labels) + l2 / 2 * weight_dc.square().sum()
        torch.autograd.backward(value)
        return value.item()

    search.step(loss)  # type: ignore[no-untyped-call]
    loss()
    if gap(weight_dc, bias_c, l2) > GAP:
        steps = search.state[weight_dc]["n_iter"]
        raise LightasrError(
            f"probe.l2: {l2:g}: no optimum after {steps} steps; leave the weakest out"
        )
    return Probe(mean_d, std_d, weight_dc.detach(), bias_c.detach())


def gap(weight_dc: Tensor, bias_c: Tensor, l2: float) -> float:
    """Nats that are left to gain, at most: the penalty bends the function by `l2` or more."""
    assert weight_dc.grad is not None
    assert bias_c.grad is not None
    squared = weight_dc.grad.square().sum() + bias_c.grad.square().sum()
    return squared.item() / (2 * l2)


def nats(scores_nc: Tensor, labels: Tensor) -> Tensor:
    """Of a row's labels, the mean over rows."""
    if labels.dim() == 1:
        return F.cross_entropy(scores_nc, labels)
    each_nc = F.binary_cross_entropy_with_logits(
        scores_nc, labels.to(scores_nc.dtype), reduction="none"
    )
    return each_nc.sum(1).mean()


class Strength(NamedTuple):
    """A penalty, and the nats by which it was chosen."""

    l2: float
    nats: float
    """Of labels that the probe had not seen, the mean over rows."""


def strength(
    x_nd: Tensor, labels: Tensor, other_nd: Tensor, other_labels: Tensor, tried: Sequence[float]
) -> Strength:
    """The penalty by which a probe of the first rows tells the others' labels best.

    Of equal ones the strongest.
    """
    found: dict[float, float] = {}
    probe: Probe | None = None
    for l2 in sorted(tried, reverse=True):
        probe = fit(x_nd, labels, l2, probe)
        found[l2] = nats(probe.scores(other_nd), other_labels).item()
    best = min(found, key=found.__getitem__)
    return Strength(best, found[best])
