"""Pre-norm transformer blocks whose self-attention is any mixer."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from lightasr.models.layers import valid_mask
from lightasr.models.registry import component, register
from lightasr.schema import Component, Fraction, Mixer, Positive


class Config(Component):
    """x + mixer(norm(x)), then x + feed-forward(norm(x)), `layers` times."""

    mixer: Mixer = Field({"name": "mhsa"}, validate_default=True)
    """What lets frames exchange information."""
    dim: Positive = 128
    """Channels of a frame."""
    layers: Positive = 3
    """Blocks."""
    feedforward: Positive = 512
    """Inner channels of the feed-forward part."""
    dropout: Fraction = 0.1
    """Share of channels dropped after each part in training."""

    def label(self) -> str:
        return f"{self.name}-{self.mixer.label()}"

    @model_validator(mode="after")
    def heads_divide_the_channels(self) -> Self:
        heads = getattr(self.mixer, "heads", 1)
        if self.dim % heads:
            raise ValueError(f"mixer.heads ({heads}) does not divide dim ({self.dim})")
        return self


class Block(nn.Module):
    """One mixing and one feed-forward part, each with its norm and residual."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(config.dim)
        self.mixer = component("mixer", config.mixer)(config.mixer, config.dim)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, config.feedforward),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feedforward, config.dim),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_btd: Tensor, valid_bt: Tensor) -> Tensor:
        x_btd = x_btd + self.dropout(self.mixer(self.mixer_norm(x_btd), valid_bt))
        return x_btd + self.dropout(self.feedforward(x_btd))


@register("encoder")
class Transformer(nn.Module):
    """(B, T, I) -> (B, T, dim)."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.project = nn.Linear(inputs, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(self, x_btd: Tensor, lengths_b: Tensor) -> tuple[Tensor, Tensor]:
        valid_bt = valid_mask(lengths_b, x_btd.shape[1])
        x_btd = self.dropout(self.project(x_btd))
        for block in self.blocks:
            x_btd = block(x_btd, valid_bt)
        return x_btd, lengths_b
