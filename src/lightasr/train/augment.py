"""SpecAugment: hides stretches of time and bands of frequency of training features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightasr.schema import SpecAugment


class SpecMasks(nn.Module):
    """Zeroes (the mean of normalised features) under masks drawn for each utterance."""

    def __init__(self, config: SpecAugment) -> None:
        super().__init__()
        self.config = config

    def forward(self, x_btf: Tensor, lengths_b: Tensor) -> Tensor:
        config = self.config
        longest_b = (lengths_b * config.time_share).clamp(max=config.time_width)
        bands_b = torch.full_like(lengths_b, x_btf.shape[2])
        widest_b = torch.full_like(lengths_b, min(config.mel_width, x_btf.shape[2]))
        hidden_bt = _spans(config.time_masks, longest_b, lengths_b, x_btf.shape[1])
        hidden_bf = _spans(config.mel_masks, widest_b, bands_b, x_btf.shape[2])
        return x_btf.masked_fill(hidden_bt[:, :, None] | hidden_bf[:, None, :], 0.0)


def _spans(count: int, widest_b: Tensor, sizes_b: Tensor, axis: int) -> Tensor:
    """True on `count` random spans of each row, none beyond the row's own size."""
    draws_2bn = torch.rand(2, len(sizes_b), count, device=sizes_b.device)
    widths_bn = (draws_2bn[0] * (widest_b[:, None] + 1)).floor()
    starts_bn = (draws_2bn[1] * (sizes_b[:, None] - widths_bn + 1)).floor()
    at = torch.arange(axis, device=sizes_b.device)
    inside_bna = (at >= starts_bn[:, :, None]) & (at < (starts_bn + widths_bn)[:, :, None])
    return inside_bna.any(dim=1)
