"""Encoders of equal blocks: a projection, the blocks, and both ways through them.

`forward` sees whole utterances, `stream` chunk after chunk; with the same `streaming` both give the
same. A block is a module of `(config)`, a mixer one of `(config, dim)`. Both have `forward(x_btd,
frames)` and, unless they need the whole utterance, `stream(x_btd, frames, state)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from lightasr.errors import LightasrError
from lightasr.models.frames import Chunks, Frames
from lightasr.models.layers import Layered, valid_mask
from lightasr.schema import BlockStack, Streaming


class Streams(Protocol):
    """A block or a mixer that takes chunk after chunk."""

    def stream(self, x_btd: Tensor, frames: Frames, state: Any) -> tuple[Tensor, Any]:
        """The next chunk; `state` is None at the beginning, then what was returned before."""


class Blocks(Layered):
    """(B, T, I) -> (B, T, dim)."""

    block: ClassVar[type[nn.Module]]

    def __init__(self, config: BlockStack, inputs: int) -> None:
        super().__init__()
        self.dim, self.streaming = config.dim, config.streaming
        self.pinned: tuple[Chunks | None] | None = None
        """What frames see in place of what would be drawn."""
        self.project = nn.Linear(inputs, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(self.block(config) for _ in range(config.layers))

    @property
    def streams(self) -> bool:
        """Whether `stream` works."""
        return self.streaming is not None

    @property
    def depth(self) -> int:
        return len(self.blocks)

    def states(self, x_btd: Tensor, lengths_b: Tensor) -> Iterator[Tensor]:
        frames = Frames(valid_mask(lengths_b, x_btd.shape[1]), self.chunks())
        x_btd = self.dropout(self.project(x_btd))
        for block in self.blocks:
            yield (x_btd := block(x_btd, frames))

    def chunks(self) -> Chunks | None:
        """What the frames of this batch see; drawn anew for each in dynamic training."""
        if self.streaming is None:
            return None
        if not (self.training and self.streaming.dynamic):
            return Chunks(self.streaming.chunk, self.streaming.left)
        return self.pinned[0] if self.pinned else drawn_chunks(self.streaming)

    def stream(self, x_btd: Tensor, state: list[Any] | None) -> tuple[Tensor, list[Any]]:
        """The next chunk (all frames of it real) of utterances that go on.

        All but the last have `streaming.chunk` frames. `state` is None at the beginning, then what
        the call before returned, an entry a block.
        """
        if self.streaming is None:
            raise LightasrError(
                "model.encoder.streaming: null, so its frames see whole utterances; train it with "
                "`streaming: {chunk: 16}`"
            )
        chunks = Chunks(self.streaming.chunk, self.streaming.left)
        if x_btd.shape[1] > chunks.size:
            raise ValueError(f"{x_btd.shape[1]} frames: more than a chunk of {chunks.size}")
        frames = Frames(torch.ones(x_btd.shape[:2], dtype=torch.bool, device=x_btd.device), chunks)
        before = [None] * len(self.blocks) if state is None else state
        after = []
        x_btd = self.dropout(self.project(x_btd))
        for block, block_state in zip(self.blocks, before, strict=True):
            x_btd, block_state = cast(Streams, block).stream(x_btd, frames, block_state)
            after.append(block_state)
        return x_btd, after


def drawn_chunks(streaming: Streaming) -> Chunks | None:
    """Half of the time None, else chunks of half to twice the size, and as much before them."""
    whole, share = torch.rand(2).tolist()
    return None if whole < 0.5 else scaled_chunks(streaming, 2 ** (2 * share - 1))


def scaled_chunks(streaming: Streaming, scale: float) -> Chunks:
    """Chunks of another size that see at least as many frames before them."""
    size = max(1, round(streaming.chunk * scale))
    if streaming.left is None:
        return Chunks(size, None)
    return Chunks(size, -(-streaming.left * streaming.chunk // size))


def extremes(model: nn.Module) -> Iterator[None]:
    """Makes a model see what takes most memory of all that dynamic training draws, in turn.

    These are whole utterances and the smallest chunks; there is one turn where nothing is drawn.
    """
    drawing = [
        (blocks, blocks.streaming)
        for blocks in model.modules()
        if isinstance(blocks, Blocks) and blocks.streaming and blocks.streaming.dynamic
    ]
    for smallest in (False, True) if drawing else (False,):
        for blocks, streaming in drawing:
            blocks.pinned = (scaled_chunks(streaming, 0.5) if smallest else None,)
        yield
    for blocks, _ in drawing:
        blocks.pinned = None
