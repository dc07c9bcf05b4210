"""The optimizer and how its learning rate rises and falls."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from lightasr.schema import Optimization
from lightasr.train.task import Pace

HELD, LAST_SHARE = 0.4, 0.05  # of `tri_stage`


def learning_rate(config: Optimization, done: float) -> float:
    """The learning rate when this share of the training is done, 0 to 1."""
    if done < config.warmup:
        return config.lr * done / config.warmup
    past = (done - config.warmup) / (1 - config.warmup)
    match config.schedule:
        case "cosine":
            return config.lr * 0.5 * (1 + math.cos(math.pi * past))
        case "linear":
            return config.lr * (1 - past)
        case "noam":
            return config.lr * math.sqrt(config.warmup / done) if config.warmup else config.lr
        case "constant":
            return config.lr
        case "tri_stage":
            falling = max(0.0, done - config.warmup - HELD) / max(1e-9, 1 - config.warmup - HELD)
            return config.lr * LAST_SHARE ** min(1.0, falling)


def make_optimizer(
    config: Optimization, model: nn.Module, pace: Callable[[str], Pace] = lambda name: Pace()
) -> torch.optim.AdamW:
    """AdamW that decays matrices, and leaves biases, norms and scales alone.

    Parameters of one pace are a group.
    """
    groups: dict[tuple[Pace, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((pace(name), parameter.dim() > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decays else 0.0,
                "share": at.share,
                "first_step": at.first_step,
            }
            for (at, decays), parameters in sorted(
                groups.items(), key=lambda each: each[0][::-1], reverse=True
            )
        ],
        lr=config.lr,
        betas=config.betas,
        fused=True,
    )


def leave_for_later(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Forget the gradients of what does not learn yet."""
    for group in optimizer.param_groups:
        if step < group["first_step"]:
            for parameter in group["params"]:
                parameter.grad = None
