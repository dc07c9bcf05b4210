"""Sums over the processes that train one model together, which gradients flow through."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class SumOverTeam(torch.autograd.Function):
    """Sum over all processes, forward and backward: for statistics that gradients flow through."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def sum_over_team(value: Tensor) -> Tensor:
    """The sum over the processes that train together, this one alone where there is one."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        summed: Tensor = SumOverTeam.apply(value)  # type: ignore[no-untyped-call]  # torch's own stub
        return summed
    return value
