"""Layers that know which frames are real: padding and batch mates never reach a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.models.synced import sum_over_team


def valid_mask(lengths_b: Tensor, frames: int) -> Tensor:
    """True where a frame belongs to its utterance: (B, T)."""
    return torch.arange(frames, device=lengths_b.device) < lengths_b[:, None]


def subsampled(lengths_b: Tensor, stride: int) -> Tensor:
    """Lengths after a convolution with `same` padding and this stride."""
    return torch.div(lengths_b + stride - 1, stride, rounding_mode="floor")


def stacked(x_btf: Tensor, lengths_b: Tensor, factor: int) -> Tensor:
    """(B, T / factor, factor * F): frames side by side, zeros where the last ones lack some."""
    x_btf = x_btf.masked_fill(~valid_mask(lengths_b, x_btf.shape[1])[:, :, None], 0)
    x_btf = F.pad(x_btf, (0, 0, 0, -x_btf.shape[1] % factor))
    return x_btf.reshape(len(x_btf), -1, factor * x_btf.shape[2])


class Layered(nn.Module, ABC):
    """An encoder that shows what each of its layers says."""

    @abstractmethod
    def states(self, x_btd: Tensor, lengths_b: Tensor) -> Iterator[Tensor]:
        """(B, T, dim) after each layer; the last is what the encoder returns."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """How many layers there are."""

    def forward(self, x_btd: Tensor, lengths_b: Tensor) -> tuple[Tensor, Tensor]:
        *_, last_btd = self.states(x_btd, lengths_b)
        return last_btd, lengths_b


class LayerReader(nn.Module):
    """A head of `(config, dim, symbols, layers)` that reads what all layers of an encoder say."""


class MaskedBatchNorm(nn.Module):
    """Batch norm of the last dimension, with statistics over valid frames only (sequence-wise).

    Deep Speech 2 normalises over batch and time; counting padding there would make an utterance's
    result depend on the length of its batch mates.
    """

    def __init__(self, size: int, momentum: float = 0.05, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.mean: Tensor
        self.var: Tensor

    def forward(self, x_btc: Tensor, valid_bt: Tensor) -> Tensor:
        x_btc = x_btc.float() if x_btc.dtype in {torch.float16, torch.bfloat16} else x_btc
        mean, var = self.statistics(x_btc, valid_bt) if self.training else (self.mean, self.var)
        scale = self.weight * (var + self.eps).rsqrt()
        return x_btc * scale + (self.bias - mean * scale)

    def statistics(self, x_btc: Tensor, valid_bt: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over the valid frames of all processes, folded into the running ones.

        In fp32 at least, whatever precision the rest is computed in.
        """
        # A dimension between time and channels (the mel bands of an image) shares the statistics.
        inner = x_btc.shape[2:-1].numel()
        axes = tuple(range(x_btc.dim() - 1))
        weight = valid_bt.to(x_btc.dtype).reshape(*valid_bt.shape, *[1] * (x_btc.dim() - 2))
        count = sum_over_team(valid_bt.sum() * inner).clamp(min=1)
        mean = sum_over_team((x_btc * weight).sum(axes)) / count
        var = sum_over_team((((x_btc - mean) * weight) ** 2).sum(axes)) / count
        self.remember(mean.detach(), var.detach() * count / (count - 1).clamp(min=1))
        return mean, var

    @torch.no_grad()
    def remember(self, mean: Tensor, var: Tensor) -> None:
        """Fold a batch into the running statistics; a batch that is no number leaves no trace."""
        sound = mean.isfinite() & var.isfinite()
        self.mean.copy_(torch.where(sound, self.mean.lerp(mean, self.momentum), self.mean))
        self.var.copy_(torch.where(sound, self.var.lerp(var, self.momentum), self.var))


class SequenceNorm(nn.Module):
    """The normalisation a configuration names: `batch` over valid frames, `layer`, or `none`."""

    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        self.batch = MaskedBatchNorm(size) if kind == "batch" else None
        self.layer = nn.LayerNorm(size) if kind == "layer" else None

    def forward(self, x_btc: Tensor, valid_bt: Tensor) -> Tensor:
        if self.batch is not None:
            normed: Tensor = self.batch(x_btc, valid_bt)
            return normed
        return x_btc if self.layer is None else self.layer(x_btc)


class FeedForward(nn.Sequential):
    """Norm, then two linear layers with GELU between them, frame by frame."""

    def __init__(self, dim: int, inner: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(dim),
            nn.Linear(dim, inner),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(inner, dim),
        )
