"""MLP-Mixer (Tolstikhin et al., 2021): an MLP across time, in windows, so that any length will do.

Of each window and channel, W2 gelu(W1 x + b1) + b2, where x are the channel's values in the
window's frames; all channels and windows share the weights. A second MLP on windows shifted by half
a window, as in Swin transformers, lets neighbouring windows exchange information:

    U = MLP1(X),    Y = U + MLP2(shifted windows of (X + U)).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.models.frames import Chunks, Frames
from lightasr.models.registry import register
from lightasr.schema import Component, Positive


class Config(Component):
    """Two MLPs across the frames of windows, the second shifted by half a window."""

    window: Positive = 16
    """Frames of a window."""
    hidden: Positive = 64
    """Inner width of the MLPs."""


@register("mixer")
class MLPMixer(nn.Module):
    """(B, T, D) -> (B, T, D); frames outside the utterance enter as zeros."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.windows = Chunks(config.window, 0)
        self.aligned = time_mlp(config.window, config.hidden)
        self.shifted = time_mlp(config.window, config.hidden)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        outside_bt1 = ~frames.valid_bt1
        x_btd = x_btd.masked_fill(outside_bt1, 0)
        u_btd = self.in_windows(self.aligned, x_btd)
        h_btd = (x_btd + u_btd).masked_fill(outside_bt1, 0)
        half = self.windows.size // 2
        return u_btd + self.in_windows(self.shifted, F.pad(h_btd, (0, 0, half, 0)))[:, half:]

    def in_windows(self, mlp: nn.Sequential, x_btd: Tensor) -> Tensor:
        """The MLP over the frames of each window."""
        x_bnwd = self.windows.split(x_btd)
        return mlp(x_bnwd.mT).mT.flatten(1, 2)[:, : x_btd.shape[1]]


def time_mlp(window: int, hidden: int) -> nn.Sequential:
    """Two linear layers over the last dimension with GELU between them."""
    return nn.Sequential(nn.Linear(window, hidden), nn.GELU(), nn.Linear(hidden, window))
