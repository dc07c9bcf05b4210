"""Parallel LSTM (Bouaziz et al., arXiv 1702.03402): one LSTM per stream of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from lightasr.models.recurrent.directions import State
from lightasr.models.recurrent.fused import FusedLayer

if TYPE_CHECKING:
    from lightasr.models.encoders.ds2 import Config

STREAMS = 3
"""Static, delta and delta-delta features in the paper."""


class ParallelLSTMLayer(nn.Module):
    """Three LSTMs that never see each other's stream; their states lie side by side.

    A frontend mixes bands and channels, so a layer's streams are the thirds of its input, as equal
    as whole numbers allow; above the first layer each third holds one stream's states.
    """

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        one = config.model_copy(update={"unit": "lstm", "dim": config.dim // STREAMS})
        widths = [part.numel() for part in torch.empty(inputs).tensor_split(STREAMS)]
        self.streams = nn.ModuleList(FusedLayer(one, width) for width in widths)

    def forward(self, x_btd: Tensor, lengths_b: Tensor) -> list[Tensor]:
        parts = x_btd.tensor_split(STREAMS, dim=-1)
        states = [layer(part, lengths_b) for layer, part in zip(self.streams, parts, strict=True)]
        return [torch.cat(direction, dim=-1) for direction in zip(*states, strict=True)]

    def stream(
        self, x_btd: Tensor, state: tuple[State, ...] | None
    ) -> tuple[Tensor, tuple[State, ...]]:
        """The next frames of utterances that go on; `state` is None at their beginning."""
        outputs, states = [], []
        parts = x_btd.tensor_split(STREAMS, dim=-1)
        for i, (layer, part) in enumerate(zip(self.streams, parts, strict=True)):
            y_bth, after = cast(FusedLayer, layer).stream(part, None if state is None else state[i])
            outputs.append(y_bth)
            states.append(after)
        return torch.cat(outputs, dim=-1), tuple(states)
