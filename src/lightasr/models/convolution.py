"""Convolutions over the frames in sight, a filter for each channel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.models.frames import Chunks, Frames


class DepthwiseConv(nn.Module):
    """(B, T, D) -> (B, T, D), centred.

    In chunks a frame sees what lies before it, and after it the rest of its chunk: weights learnt
    with whole utterances keep their places (dynamic chunk convolution).
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.conv = nn.Conv1d(dim, dim, kernel, groups=dim)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        x_btd = x_btd.masked_fill(~frames.valid_bt1, 0)
        if frames.chunks is None:
            return self.filtered(F.pad(x_btd, (0, 0, self.reach, 0)))
        size, batch, time = frames.chunks.size, *x_btd.shape[:2]
        context = self.context(frames.chunks)
        padded_btd = F.pad(x_btd, (0, 0, context, -time % size))
        windows_bndt = padded_btd.unfold(1, context + size, size)
        windows_ntd = windows_bndt.flatten(0, 1).transpose(1, 2)
        y_ntd = self.filtered(F.pad(windows_ntd, (0, 0, self.reach - context, 0)))
        return y_ntd.reshape(batch, -1, y_ntd.shape[-1])[:, :time]

    def stream(self, x_btd: Tensor, frames: Frames, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """`state`: the frames before the chunk that its first one sees."""
        assert frames.chunks is not None
        context = self.context(frames.chunks)
        before = x_btd.new_zeros(len(x_btd), context, x_btd.shape[2]) if state is None else state
        seen_btd = torch.cat([before, x_btd], dim=1)
        y_btd = self.filtered(F.pad(seen_btd, (0, 0, self.reach - context, 0)))
        return y_btd, seen_btd[:, seen_btd.shape[1] - context :]

    def context(self, chunks: Chunks) -> int:
        """Frames before a chunk that its first one sees."""
        return self.reach if chunks.left is None else min(self.reach, chunks.left * chunks.size)

    def filtered(self, x_btd: Tensor) -> Tensor:
        """Of frames that begin `reach` before the first one that is wanted."""
        return self.conv(F.pad(x_btd, (0, 0, 0, self.reach)).transpose(1, 2)).transpose(1, 2)


class Convolution(nn.Module):
    """The conformer's: W2 silu(norm(depthwise(glu(W1 x)))), with layer norm."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = DepthwiseConv(dim, kernel)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        return self.finish(self.depthwise(F.glu(self.expand(x_btd)), frames))

    def stream(self, x_btd: Tensor, frames: Frames, state: Tensor | None) -> tuple[Tensor, Tensor]:
        y_btd, state = self.depthwise.stream(F.glu(self.expand(x_btd)), frames, state)
        return self.finish(y_btd), state

    def finish(self, y_btd: Tensor) -> Tensor:
        finished: Tensor = self.out(F.silu(self.norm(y_btd)))
        return finished
