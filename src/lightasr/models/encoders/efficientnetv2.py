"""EfficientNetV2 (Tan & Le 2021) over time: inverted bottlenecks, the first ones fused.

Fused-MBConv: x + N(W2 silu(N(conv x))). MBConv: x + N(W2 (g * y)), where y is
silu(N(depthwise(silu(N(W1 x))))) and g = sigmoid(V2 silu(V1 mean_t y)) (squeeze and excitation).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.models.frames import Frames
from lightasr.models.layers import Layered, SequenceNorm, valid_mask
from lightasr.models.registry import register
from lightasr.schema import Component, Fraction, NonNegative, Odd, Positive


class Config(Component):
    """All blocks have one width and no stride: the front end alone shortens time."""

    dim: Positive = 128
    """Channels of a frame."""
    fused_layers: NonNegative = 1
    """Fused-MBConv blocks, which come first; a filter of theirs spans three frames."""
    layers: Positive = 3
    """MBConv blocks, which follow."""
    kernel: Odd = 5
    """Frames in a depthwise filter of an MBConv block; odd."""
    expansion: Positive = 4
    """Inner channels of a block for each channel of a frame."""
    norm: Literal["batch", "layer", "none"] = "batch"
    """Normalisation after each convolution; `batch`, the paper's: over valid frames."""
    dropout: Fraction = 0.1
    """Share of channels dropped after each block in training; the paper drops whole blocks."""


class NormedLinear(nn.Module):
    """N(W x), frame by frame: the paper's 1 x 1 convolutions."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=norm == "none")
        self.norm = SequenceNorm(norm, outputs)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        return self.norm(self.linear(x_btd), frames.valid_bt)


class NormedConv(nn.Module):
    """N(conv x) over valid frames."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            inputs, outputs, kernel, padding="same", groups=groups, bias=norm == "none"
        )
        self.norm = SequenceNorm(norm, outputs)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        y_bdt = self.conv((x_btd * frames.valid_bt1).transpose(1, 2))
        return self.norm(y_bdt.transpose(1, 2), frames.valid_bt)


class SqueezeExcite(nn.Module):
    """Weighs each channel by what all of the utterance's channels are on average."""

    def __init__(self, dim: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(dim, squeezed)
        self.excite = nn.Linear(squeezed, dim)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        return x_btd * self.gate(x_btd, frames)[:, None]

    def gate(self, x_btd: Tensor, frames: Frames) -> Tensor:
        """One weight per channel of each utterance: (B, D)."""
        at_least_float32 = torch.promote_types(x_btd.dtype, torch.float32)
        total_bd = (x_btd * frames.valid_bt1).sum(1, dtype=at_least_float32)
        mean_bd = total_bd / frames.valid_bt.sum(1).clamp(min=1)[:, None]
        return self.excite(F.silu(self.squeeze(mean_bd))).sigmoid()


class FusedMBConv(nn.Module):
    """One convolution both expands and mixes frames."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inner = config.expansion * config.dim
        self.expand = NormedConv(config.dim, inner, kernel=3, groups=1, norm=config.norm)
        self.project = NormedLinear(inner, config.dim, config.norm)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        y_bti = F.silu(self.expand(x_btd, frames))
        return x_btd + self.dropout(self.project(y_bti, frames))


class MBConv(nn.Module):
    """A linear layer expands, a depthwise convolution mixes frames, the utterance gates it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inner = config.expansion * config.dim
        self.expand = NormedLinear(config.dim, inner, config.norm)
        self.depthwise = NormedConv(inner, inner, config.kernel, groups=inner, norm=config.norm)
        self.gated = SqueezeExcite(inner, max(1, config.dim // 4))
        self.project = NormedLinear(inner, config.dim, config.norm)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        y_bti = F.silu(self.expand(x_btd, frames))
        y_bti = F.silu(self.depthwise(y_bti, frames))
        return x_btd + self.dropout(self.project(self.gated(y_bti, frames), frames))


@register("encoder")
class EfficientNetV2(Layered):
    """(B, T, I) -> (B, T, dim), as in the paper with a normed SiLU layer at either end."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.project = nn.Linear(inputs, config.dim)
        self.norm = SequenceNorm(config.norm, config.dim)
        self.blocks = nn.ModuleList(
            [
                *(FusedMBConv(config) for _ in range(config.fused_layers)),
                *(MBConv(config) for _ in range(config.layers)),
            ]
        )
        self.last = NormedLinear(config.dim, config.dim, config.norm)

    @property
    def depth(self) -> int:
        return len(self.blocks)

    def states(self, x_btd: Tensor, lengths_b: Tensor) -> Iterator[Tensor]:
        frames = Frames(valid_mask(lengths_b, x_btd.shape[1]))
        # Large padding would overflow in fp16, and what is infinite stays so when masked.
        x_btd = x_btd.masked_fill(~frames.valid_bt1, 0)
        x_btd = F.silu(self.norm(self.project(x_btd), frames.valid_bt))
        for block in self.blocks[:-1]:
            yield (x_btd := block(x_btd, frames))
        yield F.silu(self.last(self.blocks[-1](x_btd, frames), frames))
