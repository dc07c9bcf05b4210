"""A selective state space, as in Mamba-2 (arXiv 2405.21060), that reads an utterance both ways.

Of each head, with dt_t = softplus(.) of the frame and decays a_t = exp(-dt_t A), others (a', dt')
for the second direction:

    h_t = a_t h_{t-1} + dt_t B_t x_t^T          the past, and the frame itself
    g_t = a'_t g_{t+1} + dt'_t B_t x_t^T        the future, from the utterance's last frame
    y_t = C_t (h_t + g_{t+1}) + D x_t,          and the output is W RMSNorm(y_t * silu(z_t))

x, z, B and C are linear in the frame, without Mamba's short convolution before them. In chunks, g
starts at the end of the frame's own, and h goes through all of them: a recurrence cannot take out
what has left the sight, so `streaming.left` is not read.

`models/selective_scan.py` says how this is computed.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lightasr.models.frames import Chunks, Frames
from lightasr.models.registry import register
from lightasr.models.selective_scan import selective_scan
from lightasr.schema import Component, Positive


class Config(Component):
    """Linear recurrences, one in each direction, whose decays the frame sets: linear in time."""

    streams: ClassVar[bool] = True

    heads: Annotated[int, Field(ge=1)] = 4
    """Groups of channels with decays of their own; divides the encoder's `dim`."""
    state: Positive = 32
    """Numbers that each channel remembers in each direction."""


@register("mixer")
class StateSpace(nn.Module):
    """(B, T, D) -> (B, T, D); a frame of padding adds nothing to a state."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.widths = [dim, dim, config.state, config.state, 2 * config.heads]
        self.project = nn.Linear(dim, sum(self.widths), bias=False)
        # As in Mamba-2: heads that forget within a frame or within a thousand, to begin with.
        dt_g = torch.empty(2 * config.heads).uniform_(math.log(1e-3), math.log(0.1)).exp()
        self.dt_bias = nn.Parameter(dt_g.expm1().log())
        self.log_rate = nn.Parameter(torch.empty(2 * config.heads).uniform_(1, 16).log())
        self.skip = nn.Parameter(torch.ones(config.heads))
        self.norm = nn.RMSNorm(dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        chunks = frames.chunks or Chunks(x_btd.shape[1], None)
        return self.read(x_btd, frames.valid_bt1, chunks, None)[0]

    def stream(self, x_btd: Tensor, frames: Frames, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """`state`: h of the last frame, (B, H, S, D / H)."""
        return self.read(x_btd, frames.valid_bt1, Chunks(x_btd.shape[1], None), state)

    def read(
        self, x_btd: Tensor, valid_bt1: Tensor, chunks: Chunks, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inputs_btc = self.project(x_btd.masked_fill(~valid_bt1, 0))
        with torch.autocast(x_btd.device.type, enabled=False):
            x_btd, z_btd, b_bts, c_bts, dt_btg = inputs_btc.float().split(self.widths, dim=-1)
            x_bthp = x_btd.reshape(*x_btd.shape[:2], self.heads, -1)
            dt_btg = F.softplus(dt_btg + self.dt_bias)
            log_dt_btg = dt_btg.clamp(min=torch.finfo(torch.float32).tiny).log()
            log_decay_btg = -self.log_rate.exp() * dt_btg
            y_bthp, state = selective_scan(
                x_bthp, b_bts, c_bts, log_dt_btg, log_decay_btg, chunks.size, state
            )
            y_btd = (y_bthp + self.skip[:, None] * x_bthp).flatten(2)
            normed_btd = self.norm(y_btd * F.silu(z_btd))
        mixed_btd: Tensor = self.out(normed_btd)
        return mixed_btd, state
