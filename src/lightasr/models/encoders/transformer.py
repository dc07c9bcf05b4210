"""Pre-norm transformer blocks whose self-attention is any mixer."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from lightasr.models.blocks import Blocks, Streams
from lightasr.models.frames import Frames
from lightasr.models.layers import FeedForward
from lightasr.models.registry import component, register
from lightasr.schema import BlockStack, Positive


class Config(BlockStack):
    """x + mixer(norm(x)), then x + feed-forward(norm(x)), `layers` times."""

    feedforward: Positive = 512
    """Inner channels of the feed-forward part."""


class Block(nn.Module):
    """One mixing and one feed-forward part, each with its norm and residual."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(config.dim)
        self.mixer = component("mixer", config.mixer)(config.mixer, config.dim)
        self.feedforward = FeedForward(config.dim, config.feedforward, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        return self.finish(x_btd, self.mixer(self.mixer_norm(x_btd), frames))

    def stream(self, x_btd: Tensor, frames: Frames, state: Any) -> tuple[Tensor, Any]:
        normed_btd = self.mixer_norm(x_btd)
        mixed_btd, state = cast(Streams, self.mixer).stream(normed_btd, frames, state)
        return self.finish(x_btd, mixed_btd), state

    def finish(self, x_btd: Tensor, mixed_btd: Tensor) -> Tensor:
        x_btd = x_btd + self.dropout(mixed_btd)
        return x_btd + self.dropout(self.feedforward(x_btd))


@register("encoder")
class Transformer(Blocks):
    """(B, T, I) -> (B, T, dim)."""

    block = Block
