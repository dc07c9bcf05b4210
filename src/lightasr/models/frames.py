"""The frames of a batch as mixers see them: which are real, and which see which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Chunks:
    """Frames in chunks of equal size: one sees its own chunk and `left` before it (None: all)."""

    size: int
    left: int | None

    def sight(self, frames: int, device: torch.device) -> Tensor:
        """Whether the frame of a row sees the frame of a column: (T, T)."""
        chunk_t = torch.arange(frames, device=device) // self.size
        ago_tt = chunk_t[:, None] - chunk_t
        near_tt = ago_tt >= 0
        return near_tt if self.left is None else near_tt & (ago_tt <= self.left)

    def forgotten(self, frames: int) -> int:
        """How many of the last `frames` the next chunk does not see."""
        return 0 if self.left is None else max(0, frames - self.left * self.size)

    def split(self, x_btd: Tensor) -> Tensor:
        """(B, T, D) -> (B, N, size, D), with zeros behind the end."""
        lacking = -x_btd.shape[1] % self.size
        x_btd = F.pad(x_btd, (0, 0, 0, lacking))
        return x_btd.reshape(len(x_btd), -1, self.size, x_btd.shape[2])

    def sums(self, x_bnd: Tensor) -> Tensor:
        """Of each chunk's vector those of all chunks that its frames see: (B, N, D)."""
        if self.left is None:
            return x_bnd.cumsum(1)
        padded_bdn = F.pad(x_bnd.transpose(1, 2), (self.left, 0))
        return padded_bdn.unfold(2, self.left + 1, 1).sum(-1).transpose(1, 2)


@dataclass
class Frames:
    """What a block is told of the batch besides the frames' channels."""

    valid_bt: Tensor
    """True where a frame belongs to its utterance."""
    chunks: Chunks | None = None
    """None: every frame may see the whole utterance."""
    memory: Tensor | None = None
    """What the mixer of one block leaves for that of the next."""

    @property
    def valid_bt1(self) -> Tensor:
        return self.valid_bt[:, :, None]
