"""SummaryMixing (arXiv 2307.07421): a frame meets the mean of what it sees.

o_t = C([f(x_t); mean over the frames in sight of s(x_t)]). f and s are linear with GELU. So is the
paper's C; a linear layer follows it here, as GELU hardly goes below zero and a residual has to.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.models.frames import Chunks, Frames
from lightasr.models.registry import register
from lightasr.schema import Component, Positive


class Config(Component):
    """The mean of what a frame sees, joined to the frame: linear in time."""

    streams: ClassVar[bool] = True

    local: Positive | None = None
    """Channels of f, what a frame keeps of itself; null: the encoder's `dim`."""
    summary: Positive | None = None
    """Channels of s, whose mean is taken; null: the encoder's `dim`."""


@register("mixer")
class SummaryMixing(nn.Module):
    """(B, T, D) -> (B, T, D)."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.local_width = config.local or dim
        summary_width = config.summary or dim
        self.local = nn.Sequential(nn.Linear(dim, self.local_width), nn.GELU())
        self.summary = nn.Sequential(nn.Linear(dim, summary_width), nn.GELU())
        self.combine = nn.Linear(self.local_width + summary_width, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        chunks = frames.chunks or Chunks(x_btd.shape[1], None)
        x_btd = x_btd.masked_fill(~frames.valid_bt1, 0)
        totals_bns = chunks.sums(self.totals(x_btd, frames.valid_bt1, chunks))
        return self.combined(x_btd, totals_bns, chunks.size)

    def stream(self, x_btd: Tensor, frames: Frames, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """`state`: totals of the chunks that the next one sees; one of all, where it sees all."""
        assert frames.chunks is not None
        totals_bns = self.totals(x_btd, frames.valid_bt1, frames.chunks)
        if state is not None:
            totals_bns = torch.cat([state, totals_bns], dim=1)
        seen_bns = totals_bns.sum(1, keepdim=True)
        y_btd = self.combined(x_btd, seen_bns, x_btd.shape[1])
        if frames.chunks.left is None:
            return y_btd, seen_bns
        return y_btd, totals_bns[:, max(0, totals_bns.shape[1] - frames.chunks.left) :]

    def totals(self, x_btd: Tensor, valid_bt1: Tensor, chunks: Chunks) -> Tensor:
        """Of each chunk the sum of s, in float32, and in one more channel the number of frames."""
        s_bts = self.summary(x_btd).masked_fill(~valid_bt1, 0)
        sums_bns = chunks.split(s_bts).sum(2, dtype=torch.float32)
        counts_bn1 = chunks.split(valid_bt1.float()).sum(2)
        return torch.cat([sums_bns, counts_bn1], dim=2)

    def combined(self, x_btd: Tensor, totals_bns: Tensor, size: int) -> Tensor:
        """C, which is linear in both of its parts: a mean goes through it once for its frames."""
        mean_bns = totals_bns[..., :-1] / totals_bns[..., -1:].clamp(min=1)
        of_frame_dl, of_mean_ds = self.combine.weight.tensor_split([self.local_width], dim=1)
        frame_btd = F.linear(self.local(x_btd), of_frame_dl, self.combine.bias)
        mean_btd = F.linear(mean_bns, of_mean_ds).repeat_interleave(size, 1)[:, : x_btd.shape[1]]
        y_btd: Tensor = self.out(F.gelu(frame_btd + mean_btd))
        return y_btd
