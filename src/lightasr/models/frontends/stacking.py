"""Frame stacking: consecutive frames side by side, then one linear layer and layer norm."""

from __future__ import annotations

from torch import Tensor, nn

from lightasr.models.layers import stacked, subsampled, valid_mask
from lightasr.models.registry import register
from lightasr.schema import Component, Positive


class Config(Component):
    """The cheapest way to shorten time: no frame is seen by two outputs."""

    frames: Positive = 4
    """Frames that become one; zeros stand for those that the last group lacks."""
    dim: Positive = 256
    """Channels after the linear layer."""


@register("frontend")
class Stacking(nn.Module):
    """(B, T, F) -> (B, T / frames, dim)."""

    def __init__(self, config: Config, features: int) -> None:
        super().__init__()
        self.frames, self.dim = config.frames, config.dim
        self.project = nn.Linear(config.frames * features, config.dim)
        # Without it the encoder's own first linear layer could do this one's work.
        self.norm = nn.LayerNorm(config.dim)

    def output_lengths(self, lengths_b: Tensor) -> Tensor:
        return subsampled(lengths_b, self.frames)

    def forward(self, x_btf: Tensor, lengths_b: Tensor) -> tuple[Tensor, Tensor]:
        stacked_bts = stacked(x_btf, lengths_b, self.frames)
        lengths_b = self.output_lengths(lengths_b)
        y_btd = self.norm(self.project(stacked_bts))
        return y_btd * valid_mask(lengths_b, y_btd.shape[1])[:, :, None], lengths_b
