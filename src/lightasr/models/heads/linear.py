"""A linear layer over the encoder's states: one score per symbol and frame, for CTC."""

from __future__ import annotations

from torch import Tensor, nn

from lightasr.models.registry import register
from lightasr.schema import Component, Fraction


class Config(Component):
    """Layer norm, dropout, linear."""

    dropout: Fraction = 0.1
    """Share of encoder outputs dropped in training."""


@register("head")
class Linear(nn.Module):
    """(B, T, D) -> (B, T, V) logits."""

    def __init__(self, config: Config, dim: int, symbols: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(dim, symbols)

    def forward(self, x_btd: Tensor) -> Tensor:
        logits: Tensor = self.project(self.dropout(self.norm(x_btd)))
        return logits
