"""Linformer (Wang et al., 2020): softmax(Q (E K)^T / sqrt d) (F V), linear in time.

E and F map T frames to k slots. Utterances differ in length, so each map has two steps: frame t of
n falls into slot floor(t k / n), which holds the mean of its frames, and a learnt k x k matrix
mixes the slots. An utterance of n < k frames has n slots. The matrices start as the identity
(`train.init: xavier` draws them at random): then k >= n slots are self-attention itself, with its
rotary positions.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lightasr.models.frames import Frames
from lightasr.models.mixers import mhsa
from lightasr.models.registry import register
from lightasr.schema import Component, Fraction, Positive


class Config(Component):
    """Self-attention to a fixed number of slots in place of the frames."""

    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads; divides the encoder's `dim`."""
    slots: Positive = 64
    """Equal parts of an utterance, of which the keys and values are the means."""
    dropout: Fraction = 0.1
    """Share of attention weights dropped in training."""


@register("mixer")
class Linformer(nn.Module):
    """(B, T, D) -> (B, T, D); a slot never holds padding."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        attention = mhsa.Config(heads=config.heads, dropout=config.dropout)
        self.attention = mhsa.SelfAttention(attention, dim)
        self.key_slots = nn.Linear(config.slots, config.slots, bias=False)
        self.value_slots = nn.Linear(config.slots, config.slots, bias=False)
        nn.init.eye_(self.key_slots.weight)
        nn.init.eye_(self.value_slots.weight)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        x_btd = x_btd.masked_fill(~frames.valid_bt1, 0)
        q_bhtd, k_bhtd, v_bhtd = self.attention.projected(x_btd)
        shares_bkt, used_bk = slot_shares(frames.valid_bt, self.key_slots.in_features)
        return self.attention.attend(
            mhsa.rotary(q_bhtd),
            pooled(mhsa.rotary(k_bhtd), shares_bkt, self.key_slots),
            pooled(v_bhtd, shares_bkt, self.value_slots),
            used_bk[:, None, None, :],
        )


def slot_shares(valid_bt: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Each frame's share in the mean of each slot, (B, K, T); which slots there are, (B, K)."""
    lengths_b1 = valid_bt.sum(1, keepdim=True).clamp(min=1)
    used_b1 = lengths_b1.clamp(max=slots)
    times_t = torch.arange(valid_bt.shape[1], device=valid_bt.device)
    slots_k = torch.arange(slots, device=valid_bt.device)
    slot_bt = torch.div(times_t * used_b1, lengths_b1, rounding_mode="floor")
    holds_bkt = (slot_bt[:, None, :] == slots_k[:, None]) & valid_bt[:, None, :]
    shares_bkt = holds_bkt / holds_bkt.sum(2, keepdim=True).clamp(min=1)
    return shares_bkt, slots_k < used_b1


def pooled(x_bhtd: Tensor, shares_bkt: Tensor, mix: nn.Linear) -> Tensor:
    """The frames' means by slot, mixed by the learnt matrix: (B, H, K, D / H)."""
    # Means over time are taken in float32, whatever the matrix products around are done in.
    with torch.autocast(x_bhtd.device.type, enabled=False):
        means_bhdk = torch.einsum("bhtd,bkt->bhdk", x_bhtd.float(), shares_bkt)
    mixed: Tensor = mix(means_bhdk.to(x_bhtd.dtype)).mT
    return mixed
