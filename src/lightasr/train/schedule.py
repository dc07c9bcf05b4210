"""The optimizer and how its learning rate rises and falls."""

from __future__ import annotations

import math

import torch
from torch import nn

from lightasr.schema import Optimization


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


def make_optimizer(config: Optimization, model: nn.Module) -> torch.optim.AdamW:
    """AdamW that decays matrices, and leaves biases, norms and scales alone."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
