"""Fastformer (arXiv 2108.09084): additive attention, to one global query and one global key.

alpha_t = softmax over t of (w_q . q_t / sqrt d),  q = sum of alpha_t q_t,  p_t = q * k_t,
beta_t = softmax over t of (w_k . p_t / sqrt d),   k = sum of beta_t p_t,   u_t = k * v_t,
y_t = W u_t + q_t.

A head has d channels of q, k and v, and its own alpha and beta; w_q and w_k read all channels.
Values have weights of their own, as in the equations; the paper's experiments tie them to queries'.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lightasr.models.frames import Frames
from lightasr.models.registry import register
from lightasr.schema import Component


class Config(Component):
    """A global query and key, made by additive attention: linear in time."""

    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads; divides the encoder's `dim`."""


@register("mixer")
class Fastformer(nn.Module):
    """(B, T, D) -> (B, T, D); a frame of padding has no weight."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(dim, 3 * dim)
        # Without bias, which softmax over time would cancel.
        self.query_score = nn.Linear(dim, config.heads, bias=False)
        self.key_score = nn.Linear(dim, config.heads, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        x_btd = x_btd.masked_fill(~frames.valid_bt1, 0)
        q_btd, k_btd, v_btd = self.qkv(x_btd).chunk(3, dim=-1)
        query_b1d = self.pooled(q_btd, self.query_score(q_btd), frames.valid_bt1)
        p_btd = query_b1d.to(k_btd) * k_btd
        key_b1d = self.pooled(p_btd, self.key_score(p_btd), frames.valid_bt1)
        mixed_btd: Tensor = self.out(key_b1d.to(v_btd) * v_btd) + q_btd
        return mixed_btd

    def pooled(self, x_btd: Tensor, score_bth: Tensor, valid_bt1: Tensor) -> Tensor:
        """The sum of an utterance's frames, in float32, weighted by each head's softmax."""
        score_bth = score_bth.float() / math.sqrt(x_btd.shape[2] // self.heads)
        lowest = torch.finfo(torch.float32).min
        weight_bth = score_bth.masked_fill(~valid_bt1, lowest).softmax(dim=1)
        x_bthd = x_btd.float().reshape(*weight_bth.shape, -1)
        with torch.autocast(x_btd.device.type, enabled=False):
            return torch.einsum("bth,bthd->bhd", weight_bth, x_bthd).flatten(1)[:, None]
