"""Conformer blocks (Gulati et al. 2020) whose self-attention is any mixer.

x + F1(x) / 2, then x + mixer(norm(x)), x + conv(norm(x)), x + F2(x) / 2, and a norm.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from lightasr.models.blocks import Blocks, Streams
from lightasr.models.convolution import Convolution
from lightasr.models.frames import Frames
from lightasr.models.layers import FeedForward
from lightasr.models.registry import component, register
from lightasr.schema import BlockStack, Odd, Positive


class Config(BlockStack):
    """Two half feed-forward parts around a mixer and a convolution, `layers` times."""

    feedforward: Positive = 512
    """Inner channels of the feed-forward parts."""
    kernel: Odd = 15
    """Frames that the convolution of a block spans."""


class Block(nn.Module):
    """Its convolution, the same as mixer `conv`, has layer norm where the paper has batch norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.first = FeedForward(config.dim, config.feedforward, config.dropout)
        self.mixer_norm = nn.LayerNorm(config.dim)
        self.mixer = component("mixer", config.mixer)(config.mixer, config.dim)
        self.conv_norm = nn.LayerNorm(config.dim)
        self.conv = Convolution(config.dim, config.kernel)
        self.second = FeedForward(config.dim, config.feedforward, config.dropout)
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        x_btd = x_btd + 0.5 * self.dropout(self.first(x_btd))
        x_btd = x_btd + self.dropout(self.mixer(self.mixer_norm(x_btd), frames))
        x_btd = x_btd + self.dropout(self.conv(self.conv_norm(x_btd), frames))
        return self.finish(x_btd)

    def stream(self, x_btd: Tensor, frames: Frames, state: Any) -> tuple[Tensor, Any]:
        mixer_state, conv_state = (None, None) if state is None else state
        x_btd = x_btd + 0.5 * self.dropout(self.first(x_btd))
        normed_btd = self.mixer_norm(x_btd)
        mixed_btd, mixer_state = cast(Streams, self.mixer).stream(normed_btd, frames, mixer_state)
        x_btd = x_btd + self.dropout(mixed_btd)
        local_btd, conv_state = self.conv.stream(self.conv_norm(x_btd), frames, conv_state)
        return self.finish(x_btd + self.dropout(local_btd)), (mixer_state, conv_state)

    def finish(self, x_btd: Tensor) -> Tensor:
        normed: Tensor = self.norm(x_btd + 0.5 * self.dropout(self.second(x_btd)))
        return normed


@register("encoder")
class Conformer(Blocks):
    """(B, T, I) -> (B, T, dim)."""

    block = Block
