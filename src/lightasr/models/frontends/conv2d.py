"""Deep Speech 2's front end: strided 2-D convolutions over time and frequency."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from lightasr.models.layers import SequenceNorm, subsampled, valid_mask
from lightasr.models.registry import register
from lightasr.schema import Component, Positive


class Config(Component):
    """3 x 3 convolutions, each halving frequency; batch norm over valid frames; clipped ReLU."""

    channels: Annotated[tuple[Positive, ...], Field(min_length=1)] = (32, 32)
    """Output channels of each layer."""
    time_strides: Annotated[tuple[Positive, ...], Field(min_length=1)] = (2, 2)
    """Frames that each layer makes into one; their product shortens time."""

    norm: Literal["batch", "layer", "none"] = "batch"
    """Normalisation after each convolution, over valid frames."""

    @model_validator(mode="after")
    def one_stride_per_layer(self) -> Self:
        if len(self.channels) != len(self.time_strides):
            raise ValueError("'channels' and 'time_strides' differ in length")
        return self


class ConvBlock(nn.Module):
    """Convolution, batch norm, clipped ReLU, with frames beyond an utterance's end kept at zero."""

    def __init__(self, channels_in: int, channels: int, time_stride: int, norm: str) -> None:
        super().__init__()
        self.time_stride = time_stride
        self.conv = nn.Conv2d(
            channels_in,
            channels,
            kernel_size=3,
            stride=(time_stride, 2),
            padding=1,
            bias=norm == "none",
        )
        self.norm = SequenceNorm(norm, channels)

    def forward(self, x_bctf: Tensor, lengths_b: Tensor) -> tuple[Tensor, Tensor]:
        y_bctf = self.conv(x_bctf)
        lengths_b = subsampled(lengths_b, self.time_stride)
        valid_bt = valid_mask(lengths_b, y_bctf.shape[2])
        y_btfc = self.norm(y_bctf.permute(0, 2, 3, 1), valid_bt)
        y_btfc = F.hardtanh(y_btfc, 0, 20) * valid_bt[:, :, None, None]
        return y_btfc.permute(0, 3, 1, 2), lengths_b


@register("frontend")
class Conv2d(nn.Module):
    """(B, T, F) -> (B, T / strides, channels * F / 2**layers)."""

    def __init__(self, config: Config, features: int) -> None:
        super().__init__()
        channels = (1, *config.channels)
        self.time_strides = config.time_strides
        self.blocks = nn.ModuleList(
            ConvBlock(channels[i], channels[i + 1], stride, config.norm)
            for i, stride in enumerate(config.time_strides)
        )
        for _ in config.channels:
            features = (features + 1) // 2
        self.dim = channels[-1] * features

    def output_lengths(self, lengths_b: Tensor) -> Tensor:
        for stride in self.time_strides:
            lengths_b = subsampled(lengths_b, stride)
        return lengths_b

    def forward(self, x_btf: Tensor, lengths_b: Tensor) -> tuple[Tensor, Tensor]:
        x_bctf = (x_btf * valid_mask(lengths_b, x_btf.shape[1])[:, :, None])[:, None]
        for block in self.blocks:
            x_bctf, lengths_b = block(x_bctf, lengths_b)
        return x_bctf.permute(0, 2, 1, 3).flatten(2), lengths_b
