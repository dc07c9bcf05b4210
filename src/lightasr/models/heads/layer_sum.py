"""A learnt weighted sum of what all layers of the encoder say, then one linear layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.models.layers import LayerReader
from lightasr.models.registry import register
from lightasr.schema import Component


class Config(Component):
    """The probe of SUPERB (arXiv 2105.01051): over a frozen encoder it shows in which layers that
    lies which is asked for. Each is normalised, so that a weight tells of use, not of scale."""


@register("head")
class LayerSum(LayerReader):
    """A list of (B, T, D) -> (B, T, V) logits."""

    def __init__(self, config: Config, dim: int, symbols: int, layers: int) -> None:
        super().__init__()
        self.weight_l = nn.Parameter(torch.zeros(layers))
        self.project = nn.Linear(dim, symbols)

    def forward(self, states: list[Tensor]) -> Tensor:
        shares_l = self.weight_l.softmax(0)
        x_btd = sum(
            share * F.layer_norm(state_btd, state_btd.shape[-1:])
            for share, state_btd in zip(shares_l, states, strict=True)
        )
        logits: Tensor = self.project(x_btd)
        return logits
