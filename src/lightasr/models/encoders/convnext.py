"""ConvNeXt (Liu et al. 2022) over time: large depthwise filters, then an MLP frame by frame.

x + g * W2 gelu(W1 norm(depthwise(x))), where g is a weight per channel (layer scale).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lightasr.models.frames import Frames
from lightasr.models.layers import FeedForward, Layered, valid_mask
from lightasr.models.registry import register
from lightasr.schema import Component, Fraction, Odd, Positive


class Config(Component):
    """One stage of the paper's four: the front end alone shortens time. Filters are dilated."""

    dim: Positive = 128
    """Channels of a frame."""
    layers: Positive = 6
    """Blocks."""
    kernel: Odd = 7
    """Frames in a filter; odd."""
    dilations: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 2, 4)
    """Distance of a filter's frames in the first block, the second and so on, then from the start
    again. The paper has [1] and sees far by its strides, which CTC's frames leave no room for."""
    expansion: Positive = 4
    """Inner channels of a block for each channel of a frame."""
    layer_scale: Annotated[float, Field(gt=0)] = 0.1
    """Weight that each block's result begins with. The paper's 1e-6 is for long trainings of deep
    nets; CaiT (arXiv 2103.17239), where layer scale is from, has 0.1 for up to 18 blocks."""
    dropout: Fraction = 0.1
    """Share of channels dropped inside and after each block in training."""


class Block(nn.Module):
    """(B, T, D) -> (B, T, D)."""

    def __init__(self, config: Config, dilation: int) -> None:
        super().__init__()
        dim = config.dim
        self.depthwise = nn.Conv1d(
            dim, dim, config.kernel, padding="same", dilation=dilation, groups=dim
        )
        self.feedforward = FeedForward(dim, config.expansion * dim, config.dropout)
        self.scale = nn.Parameter(torch.full((dim,), config.layer_scale))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        y_bdt = self.depthwise((x_btd * frames.valid_bt1).transpose(1, 2))
        return x_btd + self.dropout(self.scale * self.feedforward(y_bdt.transpose(1, 2)))


@register("encoder")
class ConvNeXt(Layered):
    """(B, T, I) -> (B, T, dim), with a norm before the first block and one after the last."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.project = nn.Linear(inputs, config.dim)
        self.first_norm = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(
            Block(config, config.dilations[i % len(config.dilations)]) for i in range(config.layers)
        )
        self.last_norm = nn.LayerNorm(config.dim)

    @property
    def depth(self) -> int:
        return len(self.blocks)

    def states(self, x_btd: Tensor, lengths_b: Tensor) -> Iterator[Tensor]:
        frames = Frames(valid_mask(lengths_b, x_btd.shape[1]))
        # Large padding would overflow in fp16, and what is infinite stays so when masked.
        x_btd = x_btd.masked_fill(~frames.valid_bt1, 0)
        x_btd = self.first_norm(self.project(x_btd))
        for block in self.blocks[:-1]:
            yield (x_btd := block(x_btd, frames))
        yield self.last_norm(self.blocks[-1](x_btd, frames))
