"""HyperMixer (arXiv 2203.03691): an MLP over time whose weights are made from the frames.

Y = LayerNorm(W2 gelu(W1^T X / n)) with W1 = MLP1(X + P), W2 = MLP2(X + P): a row a frame, `hidden`
columns, P sinusoidal positions, n the utterance's number of frames. As in HyperConformer
(arXiv 2305.18281), each head does this with its own share of the channels.

The division by n, not in the paper, makes W1^T X a mean over time, which does not grow with the
utterance: what is learnt from short ones holds for long ones, and float16 does not overflow.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lightasr.models.frames import Frames
from lightasr.models.registry import register
from lightasr.schema import Component, Positive


class Config(Component):
    """An MLP over time with weights from the frames: linear in time."""

    heads: Annotated[int, Field(ge=1)] = 4
    """Groups of channels, each with weights of its own; divides the encoder's `dim`."""
    hidden: Positive = 64
    """Hidden units of each head's MLP over time."""


def sinusoids(frames: int, dim: int, device: torch.device) -> Tensor:
    """Sine and cosine of the time by turns, each pair slower than that before: (T, D)."""
    half = (dim + 1) // 2
    rates_d = 10000 ** (-torch.arange(half, device=device) / half)
    angles_td = torch.arange(frames, device=device)[:, None] * rates_d
    return torch.stack([angles_td.sin(), angles_td.cos()], dim=2).flatten(1)[:, :dim]


class HeadwiseMLP(nn.Sequential):
    """(B, D, T) -> (B, heads * hidden, T): each head from its own channels, frame by frame."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__(
            nn.Conv1d(dim, dim, 1, groups=heads),
            nn.GELU(),
            nn.Conv1d(dim, heads * hidden, 1, groups=heads),
        )


@register("mixer")
class HyperMixer(nn.Module):
    """(B, T, D) -> (B, T, D); a frame of padding has no row in W1."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.into = HeadwiseMLP(dim, config.heads, config.hidden)
        self.back = HeadwiseMLP(dim, config.heads, config.hidden)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        x_btd = x_btd.masked_fill(~frames.valid_bt1, 0)
        width = x_btd.shape[2] // self.heads  # each head sees all rates
        places_tc = sinusoids(x_btd.shape[1], width, x_btd.device)
        placed_btd = x_btd + places_tc.repeat(1, self.heads).to(x_btd)
        placed_bdt = placed_btd.transpose(1, 2)
        valid_b11t = frames.valid_bt[:, None, None, :]
        w1_bhet = self.by_head(self.into(placed_bdt)).masked_fill(~valid_b11t, 0)
        w2_bhet = self.by_head(self.back(placed_bdt))
        x_bhct = self.by_head(x_btd.transpose(1, 2))
        count_b111 = valid_b11t.sum(-1, keepdim=True).clamp(min=1)
        with torch.autocast(x_btd.device.type, enabled=False):  # a sum over time
            mean_bhec = w1_bhet.float() @ x_bhct.float().transpose(2, 3) / count_b111
        y_bhct = F.gelu(mean_bhec).transpose(2, 3) @ w2_bhet
        y_btd: Tensor = self.norm(y_bhct.flatten(1, 2).transpose(1, 2))
        return y_btd

    def by_head(self, x_bdt: Tensor) -> Tensor:
        """(B, heads * C, T) -> (B, heads, C, T)."""
        return x_bdt.reshape(len(x_bdt), self.heads, -1, x_bdt.shape[2])
