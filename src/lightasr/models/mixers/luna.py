"""Luna (Ma et al., 2021): a few tokens read the frames, then the frames read the tokens.

P' = Attn(P, X, X), Y = Attn(X, P', P'), both multi-head, with l tokens P: O(l T), linear in time.

A block's tokens are P = LayerNorm(its learnt ones + what the block before left); it leaves P + P'.
The norm stands before use, as the frames' does: so no block has parameters that nobody reads.

In chunks, each chunk has its own tokens. They pack the chunk's frames; P' of a chunk is the packed
of all chunks in sight, weighed by the sums of exponentials that their softmaxes were divided by.
Where the chunks' tokens are equal (the first block), that is the softmax over all frames in sight.

There are no positions inside: they come from the convolutions around (front end, conformer).
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
from lightasr.schema import Component, Fraction, Positive

FAINTEST = -600.0
"""Least log weight of a chunk beside its utterance's greatest: exp() of less would be zero. Where
weights lie further apart, `forward` is no longer what `stream` gives."""

Packed = tuple[Tensor, Tensor]
"""Of each chunk the mean value by token (B, N, H, L, C), and the log of its weight (B, N, H, L)."""


class Config(Component):
    """Attention through a few tokens, which each block hands on to the next."""

    streams: ClassVar[bool] = True

    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads; divides the encoder's `dim`."""
    tokens: Positive = 16
    """Tokens that the frames are packed into."""
    dropout: Fraction = 0.1
    """Share of attention weights dropped in training."""


@register("mixer")
class Luna(nn.Module):
    """(B, T, D) -> (B, T, D), and (B, N, L, D) of tokens for the next block, N chunks."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        # As large as the normalised tokens that they are added to.
        self.tokens_ld = nn.Parameter(torch.randn(config.tokens, dim))
        self.tokens_norm = nn.LayerNorm(dim)
        self.pack_query = nn.Linear(dim, dim)
        self.frame_parts = nn.Linear(dim, 3 * dim)  # to pack: keys, values; to unpack: queries
        self.pack_out = nn.Linear(dim, dim)
        self.unpack_key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        chunks = frames.chunks or Chunks(x_btd.shape[1], 0)
        tokens_bnld = self.tokens(frames)
        packed, q_bnhsc = self.pack(x_btd, tokens_bnld, frames.valid_bt, chunks)
        return self.unpack(q_bnhsc, tokens_bnld, over_sight(packed, chunks), x_btd, frames)

    def stream(
        self, x_btd: Tensor, frames: Frames, state: Packed | None
    ) -> tuple[Tensor, Packed | None]:
        """`state`: the packed chunks that the next one sees, as a single one if it sees all."""
        assert frames.chunks is not None
        tokens_bnld = self.tokens(frames)
        packed, q_bnhsc = self.pack(x_btd, tokens_bnld, frames.valid_bt, frames.chunks)
        if state is not None:
            packed = (torch.cat([state[0], packed[0]], 1), torch.cat([state[1], packed[1]], 1))
        values, logs = packed
        share = logs.softmax(1)[..., None].to(values.dtype)
        seen_bnhlc = (share * values).sum(1, keepdim=True)
        y_btd = self.unpack(q_bnhsc, tokens_bnld, seen_bnhlc, x_btd, frames)
        if frames.chunks.left is None:
            return y_btd, (seen_bnhlc, logs.logsumexp(1, keepdim=True))
        forgotten = max(0, values.shape[1] - frames.chunks.left)
        return y_btd, (values[:, forgotten:], logs[:, forgotten:])

    def tokens(self, frames: Frames) -> Tensor:
        """This block's tokens: (B, N, L, D), or (1, 1, L, D) in the first block."""
        before = 0 if frames.memory is None else frames.memory
        normed: Tensor = self.tokens_norm(self.tokens_ld[None, None] + before)
        return normed

    def pack(
        self, x_btd: Tensor, tokens_bnld: Tensor, valid_bt: Tensor, chunks: Chunks
    ) -> tuple[Packed, Tensor]:
        """What the tokens of each chunk read in it alone; also the queries of its frames."""
        valid_bt1 = valid_bt[:, :, None]
        parts_bns3d = chunks.split(self.frame_parts(x_btd.masked_fill(~valid_bt1, 0)))
        k_bnhsc, v_bnhsc, q_bnhsc = map(self.by_head, parts_bns3d.chunk(3, dim=-1))
        q_bnhlc = self.by_head(self.pack_query(tokens_bnld))
        scores_bnhls = (q_bnhlc @ k_bnhsc.mT).float() / math.sqrt(k_bnhsc.shape[-1])
        real_bn11s = chunks.split(valid_bt1)[:, :, None].mT
        scores_bnhls = scores_bnhls.masked_fill(~real_bn11s, torch.finfo(torch.float32).min)
        weights_bnhls = F.dropout(scores_bnhls.softmax(-1), self.dropout, self.training)
        values_bnhlc = weights_bnhls.to(v_bnhsc.dtype) @ v_bnhsc
        return (values_bnhlc, scores_bnhls.logsumexp(-1)), q_bnhsc

    def unpack(
        self,
        q_bnhsc: Tensor,
        tokens_bnld: Tensor,
        packed_bnhlc: Tensor,
        x_btd: Tensor,
        frames: Frames,
    ) -> Tensor:
        """The frames' mixture of the tokens; leaves the tokens to the next block."""
        packed_bnld = self.pack_out(packed_bnhlc.transpose(2, 3).flatten(3))
        frames.memory = tokens_bnld + packed_bnld
        k_bnhlc, v_bnhlc = map(self.by_head, self.unpack_key_value(packed_bnld).chunk(2, dim=-1))
        y_mhsc = F.scaled_dot_product_attention(
            q_bnhsc.flatten(0, 1),
            k_bnhlc.flatten(0, 1),
            v_bnhlc.flatten(0, 1),
            dropout_p=self.dropout if self.training else 0.0,
        )
        y_btd = y_mhsc.transpose(1, 2).reshape(len(x_btd), -1, x_btd.shape[2])
        mixed: Tensor = self.out(y_btd[:, : x_btd.shape[1]])
        return mixed

    def by_head(self, x_bnsd: Tensor) -> Tensor:
        """(B, N, S, D) -> (B, N, H, S, D / H)."""
        return x_bnsd.reshape(*x_bnsd.shape[:3], self.heads, -1).transpose(2, 3)


def over_sight(packed: Packed, chunks: Chunks) -> Tensor:
    """Each chunk's tokens with all that they see: (B, N, H, L, C)."""
    values, logs = packed
    # The weights of an utterance may lie far apart, and each sum must keep those it holds: float64.
    logs = logs.double() - logs.detach().amax(1, keepdim=True)
    weights = logs.clamp(min=FAINTEST).exp()[..., None]
    sums = chunks.sums((weights * values).flatten(2)).view(values.shape)
    return (sums / chunks.sums(weights.flatten(2)).view(weights.shape)).to(values.dtype)
