"""Multi-head self-attention with rotary positions: softmax(Q K^T / sqrt d) V over valid frames."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lightasr.models.registry import register
from lightasr.schema import Component, Fraction


class Config(Component):
    """Scaled dot products, quadratic in time."""

    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads; divides the encoder's `dim`."""
    dropout: Fraction = 0.1
    """Share of attention weights dropped in training."""


def rotary(x_bhtd: Tensor) -> Tensor:
    """Rotate pairs of channels by an angle that grows with time: dot products see distances."""
    half = x_bhtd.shape[-1] // 2
    rates_d = 10000 ** (-torch.arange(half, device=x_bhtd.device) / half)
    angles_td = torch.arange(x_bhtd.shape[2], device=x_bhtd.device)[:, None] * rates_d
    cos, sin = angles_td.cos().to(x_bhtd.dtype), angles_td.sin().to(x_bhtd.dtype)
    a, b = x_bhtd[..., :half], x_bhtd[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, x_bhtd[..., 2 * half :]], dim=-1)


@register("mixer")
class SelfAttention(nn.Module):
    """(B, T, D) -> (B, T, D); a frame never sees padding."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        if dim % config.heads:
            raise ValueError(f"mhsa: {config.heads} heads do not divide {dim} channels")
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_btd: Tensor, valid_bt: Tensor) -> Tensor:
        batch, frames, dim = x_btd.shape
        qkv = self.qkv(x_btd).view(batch, frames, 3, self.heads, dim // self.heads)
        q_bhtd, k_bhtd, v_bhtd = qkv.permute(2, 0, 3, 1, 4)
        y_bhtd = F.scaled_dot_product_attention(
            rotary(q_bhtd),
            rotary(k_bhtd),
            v_bhtd,
            attn_mask=valid_bt[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        mixed: Tensor = self.out(y_bhtd.transpose(1, 2).reshape(batch, frames, dim))
        return mixed
