"""Two linear recurrences whose decays differ from frame to frame, as matrix products.

    h_t = a_t h_{t-1} + dt_t B_t x_t^T        from the first frame on
    g_t = a'_t g_{t+1} + dt'_t B_t x_t^T      back from the last frame of each chunk
    y_t = C_t (h_t + g_{t+1})

Time is cut into blocks. In a block both recurrences are one matrix: what is left at one frame of
another. From block to block, states are combined over distances that double, in log2 of their
number steps. Decays are kept as logarithms, and only what is left is exponentiated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightasr.models.frames import Chunks

BLOCK = 64
"""Frames of a block, at most: more cost more within it, fewer more between them."""
FORGOTTEN = -17.0
"""Logarithm of the strongest decay; float32 sees no such rest beside 1. With much stronger ones the
differences of sums over a block would lose their digits."""


@dataclass(frozen=True)
class Blocks:
    """Time in spans, each of whole chunks, or of one chunk where a block cannot hold it."""

    span: int
    """Frames of a span."""
    per_span: int
    """Blocks in a span."""

    @classmethod
    def of(cls, time: int, chunk: int) -> Blocks:
        chunk = min(chunk, time)
        together = max(1, min(BLOCK // chunk, -(-time // chunk)))
        return cls(together * chunk, -(-chunk // BLOCK))

    @property
    def size(self) -> int:
        """Frames of a block; the last one of a span may have less."""
        return -(-self.span // self.per_span)

    def split(self, x_btd: Tensor) -> Tensor:
        """(B, T, D) -> (B, N, Q, D), with zeros where there is no frame."""
        x_bjld = Chunks(self.span, None).split(x_btd)
        x_bjld = F.pad(x_bjld, (0, 0, 0, self.per_span * self.size - self.span))
        return x_bjld.reshape(len(x_btd), -1, self.size, x_btd.shape[2])

    def join(self, x_bnqd: Tensor, time: int) -> Tensor:
        """(B, N, Q, D) -> (B, T, D)."""
        x_bjld = x_bnqd.reshape(len(x_bnqd), -1, self.per_span * self.size, x_bnqd.shape[3])
        return x_bjld[:, :, : self.span].flatten(1, 2)[:, :time]


@dataclass(frozen=True)
class Logarithms:
    """Of what is left, each (B, N, H, Q).

    Of frame k there is exp(past[q] + into_h[k]) in h at a later frame q, or at k itself, and
    exp(into_g[k] - future[q]) in g after an earlier one.
    """

    past: Tensor
    into_h: Tensor
    future: Tensor
    into_g: Tensor

    @classmethod
    def of(cls, log_dt_bngq: Tensor, log_decay_bngq: Tensor) -> Logarithms:
        log_decay_bngq = log_decay_bngq.clamp(min=FORGOTTEN)
        dt_h, dt_g = log_dt_bngq.chunk(2, dim=2)
        past, future = log_decay_bngq.cumsum(3).chunk(2, dim=2)
        return cls(past, dt_h - past, future, dt_g + future - log_decay_bngq.chunk(2, dim=2)[1])

    def between(self, chunk: int) -> Tensor:
        """At frame q of frame k: (B, N, H, Q, K); of later chunks nothing."""
        at_q = torch.arange(self.past.shape[3], device=self.past.device)
        past_qk = at_q[:, None] >= at_q
        unseen_qk = ~past_qk & (at_q[:, None] // chunk != at_q // chunk)
        in_h = self.past[..., None] + self.into_h[..., None, :]
        in_g = self.into_g[..., None, :] - self.future[..., None]
        return torch.where(past_qk, in_h, in_g).masked_fill(unseen_qk, -torch.inf)


def selective_scan(
    x_bthp: Tensor,
    b_bts: Tensor,
    c_bts: Tensor,
    log_dt_btg: Tensor,
    log_decay_btg: Tensor,
    chunk: int,
    h_bhsp: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """y (B, T, H, P) with chunks of so many frames, and the last h; `h_bhsp` is before the first.

    dt and decays are those of each head's h, then those of its g. A frame with x and B of zero that
    lets nothing decay (logarithm 0) changes no state.
    """
    batch, time, heads, width = x_bthp.shape
    blocks = Blocks.of(time, chunk)
    x_bnhqp = blocks.split(x_bthp.flatten(2)).reshape(batch, -1, blocks.size, heads, width)
    x_bnhqp = x_bnhqp.transpose(2, 3)
    b_bn1sq, c_bn1qs = blocks.split(b_bts).mT[:, :, None], blocks.split(c_bts)[:, :, None]
    logs = Logarithms.of(blocks.split(log_dt_btg).mT, blocks.split(log_decay_btg).mT)

    y_bnhqp = (logs.between(chunk).exp() * (c_bn1qs @ b_bn1sq)) @ x_bnhqp
    whole_bnh1 = logs.past[..., -1:]
    added_bnhsp = b_bn1sq @ (x_bnhqp * (whole_bnh1 + logs.into_h).exp()[..., None])
    h_bnhsp = carried(whole_bnh1, added_bnhsp, h_bhsp)
    y_bnhqp = y_bnhqp + logs.past.exp()[..., None] * (c_bn1qs @ h_bnhsp[:, :-1])
    if blocks.per_span > 1:
        whole_bnh1 = logs.future[..., -1:]
        added_bnhsp = b_bn1sq @ (x_bnhqp * logs.into_g.exp()[..., None])
        g_bnhsp = carried_back(whole_bnh1, added_bnhsp, blocks.per_span)
        y_bnhqp = y_bnhqp + (whole_bnh1 - logs.future).exp()[..., None] * (c_bn1qs @ g_bnhsp)
    y_btd = blocks.join(y_bnhqp.transpose(2, 3).flatten(3), time)
    return y_btd.reshape(x_bthp.shape), h_bnhsp[:, -1]


def carried(log_decay_bnh1: Tensor, added_bnhsp: Tensor, first_bhsp: Tensor | None) -> Tensor:
    """The states before each block and after the last: (B, N + 1, H, S, P)."""
    if first_bhsp is None:
        first_bhsp = torch.zeros_like(added_bnhsp[:, 0])
    state = torch.cat([first_bhsp[:, None], added_bnhsp], dim=1)
    log_decay = F.pad(log_decay_bnh1, (0, 0, 0, 0, 1, 0))[..., None]
    far = 1
    while far < state.shape[1]:
        reached = state[:, far:] + log_decay[:, far:].exp() * state[:, :-far]
        state = torch.cat([state[:, :far], reached], dim=1)
        log_decay = torch.cat([log_decay[:, :far], log_decay[:, far:] + log_decay[:, :-far]], dim=1)
        far *= 2
    return state


def carried_back(log_decay_bnh1: Tensor, added_bnhsp: Tensor, per_span: int) -> Tensor:
    """The states after each block, from a span's last block to its first: (B, N, H, S, P)."""
    log_decay_jmh1 = log_decay_bnh1.reshape(-1, per_span, *log_decay_bnh1.shape[2:]).flip(1)
    added_jmhsp = added_bnhsp.reshape(-1, per_span, *added_bnhsp.shape[2:]).flip(1)
    before_jmhsp = carried(log_decay_jmh1, added_jmhsp, None)[:, :-1]
    return before_jmhsp.flip(1).reshape_as(added_bnhsp)
