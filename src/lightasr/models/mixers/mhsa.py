"""Multi-head self-attention with rotary positions: softmax(Q K^T / sqrt d) V over what is seen."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lightasr.models.frames import Frames
from lightasr.models.registry import register
from lightasr.schema import Component, Fraction


class Config(Component):
    """Scaled dot products, quadratic in time."""

    streams: ClassVar[bool] = True

    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads; divides the encoder's `dim`."""
    dropout: Fraction = 0.1
    """Share of attention weights dropped in training."""


def rotary(x_bhtd: Tensor, first: int = 0) -> Tensor:
    """Rotate pairs of channels by an angle that grows with time: dot products see distances."""
    half = x_bhtd.shape[-1] // 2
    rates_d = 10000 ** (-torch.arange(half, device=x_bhtd.device) / half)
    times_t = first + torch.arange(x_bhtd.shape[2], device=x_bhtd.device)
    angles_td = times_t[:, None] * rates_d
    cos, sin = angles_td.cos().to(x_bhtd.dtype), angles_td.sin().to(x_bhtd.dtype)
    a, b = x_bhtd[..., :half], x_bhtd[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, x_bhtd[..., 2 * half :]], dim=-1)


@register("mixer")
class SelfAttention(nn.Module):
    """(B, T, D) -> (B, T, D); a frame never sees padding."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        seen_btt = frames.valid_bt[:, None, None, :]
        if frames.chunks is not None:
            seen_btt = seen_btt & frames.chunks.sight(x_btd.shape[1], x_btd.device)
            # A frame of padding may see none: any will do, as nobody sees what it becomes.
            seen_btt = seen_btt | ~frames.valid_bt[:, None, :, None]
        q_bhtd, k_bhtd, v_bhtd = self.projected(x_btd)
        return self.attend(rotary(q_bhtd), rotary(k_bhtd), v_bhtd, seen_btt)

    def stream(
        self, x_btd: Tensor, frames: Frames, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`state`: keys and values of the chunks before that the next one sees."""
        assert frames.chunks is not None
        q_bhtd, k_bhtd, v_bhtd = self.projected(x_btd)
        if state is not None:
            k_bhtd, v_bhtd = (
                torch.cat(pair, dim=2) for pair in zip(state, (k_bhtd, v_bhtd), strict=True)
            )
        first = k_bhtd.shape[2] - q_bhtd.shape[2]
        y_btd = self.attend(rotary(q_bhtd, first), rotary(k_bhtd), v_bhtd, None)
        forgotten = frames.chunks.forgotten(k_bhtd.shape[2])
        return y_btd, (k_bhtd[:, :, forgotten:], v_bhtd[:, :, forgotten:])

    def projected(self, x_btd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, H, T, D / H) each."""
        q_bhtd, k_bhtd, v_bhtd = (
            part_btd.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part_btd in self.qkv(x_btd).chunk(3, dim=-1)
        )
        return q_bhtd, k_bhtd, v_bhtd

    def attend(
        self, q_bhtd: Tensor, k_bhtd: Tensor, v_bhtd: Tensor, seen_btt: Tensor | None
    ) -> Tensor:
        y_bhtd = F.scaled_dot_product_attention(
            q_bhtd,
            k_bhtd,
            v_bhtd,
            attn_mask=seen_btt,
            dropout_p=self.dropout if self.training else 0.0,
        )
        mixed: Tensor = self.out(y_bhtd.transpose(1, 2).flatten(2))
        return mixed
