"""Branchformer blocks (Peng et al. 2022) whose self-attention is any mixer.

x + W [mixer(norm(x)); cgmlp(norm(x))], where with [a; b] = gelu(V x)
cgmlp(x) = U (a * depthwise(norm(b))).
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.models.blocks import Blocks, Streams
from lightasr.models.convolution import DepthwiseConv
from lightasr.models.frames import Frames
from lightasr.models.registry import component, register
from lightasr.schema import BlockStack, Odd, Positive


class Config(BlockStack):
    """A mixer beside an MLP with a gate from a convolution, `layers` times."""

    gated: Positive = 256
    """Channels of the gated MLP's gate, and of what it gates."""
    kernel: Odd = 31
    """Frames that the gate's convolution spans."""


class GatedMLP(nn.Module):
    """Convolutional gating MLP: a convolution of one half of the channels gates the other."""

    def __init__(self, dim: int, inner: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * inner)
        self.norm = nn.LayerNorm(inner)
        self.gate = DepthwiseConv(inner, kernel)
        bias = self.gate.conv.bias
        assert bias is not None
        nn.init.normal_(self.gate.conv.weight, std=1e-6)  # open gates to begin with
        nn.init.ones_(bias)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(inner, dim)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        a_btd, b_btd = self.halves(x_btd)
        return self.joined(a_btd, self.gate(b_btd, frames))

    def stream(self, x_btd: Tensor, frames: Frames, state: Tensor | None) -> tuple[Tensor, Tensor]:
        a_btd, b_btd = self.halves(x_btd)
        gate_btd, state = self.gate.stream(b_btd, frames, state)
        return self.joined(a_btd, gate_btd), state

    def halves(self, x_btd: Tensor) -> tuple[Tensor, Tensor]:
        a_btd, b_btd = F.gelu(self.expand(x_btd)).chunk(2, dim=-1)
        return a_btd, self.norm(b_btd)

    def joined(self, a_btd: Tensor, gate_btd: Tensor) -> Tensor:
        y_btd: Tensor = self.out(self.dropout(a_btd * gate_btd))
        return y_btd


class Block(nn.Module):
    """Both branches read the same input."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(config.dim)
        self.mixer = component("mixer", config.mixer)(config.mixer, config.dim)
        self.mlp_norm = nn.LayerNorm(config.dim)
        self.mlp = GatedMLP(config.dim, config.gated, config.kernel, config.dropout)
        self.merge = nn.Linear(2 * config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        mixed_btd = self.mixer(self.mixer_norm(x_btd), frames)
        return self.merged(x_btd, mixed_btd, self.mlp(self.mlp_norm(x_btd), frames))

    def stream(self, x_btd: Tensor, frames: Frames, state: Any) -> tuple[Tensor, Any]:
        mixer_state, mlp_state = (None, None) if state is None else state
        normed_btd = self.mixer_norm(x_btd)
        mixed_btd, mixer_state = cast(Streams, self.mixer).stream(normed_btd, frames, mixer_state)
        local_btd, mlp_state = self.mlp.stream(self.mlp_norm(x_btd), frames, mlp_state)
        return self.merged(x_btd, mixed_btd, local_btd), (mixer_state, mlp_state)

    def merged(self, x_btd: Tensor, mixed_btd: Tensor, local_btd: Tensor) -> Tensor:
        both_btd = torch.cat([self.dropout(mixed_btd), self.dropout(local_btd)], dim=-1)
        normed: Tensor = self.norm(x_btd + self.dropout(self.merge(both_btd)))
        return normed


@register("encoder")
class Branchformer(Blocks):
    """(B, T, I) -> (B, T, dim)."""

    block = Block
