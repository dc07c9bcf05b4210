"""FNet (Lee-Thorp et al., 2021): Y = Re FFT_t FFT_d X, each utterance at its own length.

Both transforms are orthonormal: divided by the square roots of the length and of the channels.

A batch holds many lengths n, and padding to a common one would change the frequencies. Bluestein's
identity 2 m t = m^2 + t^2 - (m - t)^2 turns a transform of any length into a convolution,

    FFT_t(x)_m = w_m sum_t (x_t w_t) conj(w_(m - t)),    w_t = exp(-i pi t^2 / n),

which FFTs of one size compute for the whole batch, in O(T log T).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightasr.models.frames import Frames
from lightasr.models.registry import register
from lightasr.schema import Component


class Config(Component):
    """Fourier transforms over time and channels; nothing is learnt."""


@register("mixer")
class FNet(nn.Module):
    """(B, T, D) -> (B, T, D) float32; zeros where the padding is."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x_btd: Tensor, frames: Frames) -> Tensor:
        lengths_b1 = frames.valid_bt.sum(1, keepdim=True).clamp(min=1)
        x_btd = x_btd.masked_fill(~frames.valid_bt1, 0).float()
        low_btf = fft_over_time(torch.fft.rfft(x_btd, norm="ortho"), lengths_b1).real
        low_btf = low_btf.masked_fill(~frames.valid_bt1, 0)
        # Of real input, frequency D - d over channels has the values of d, in time reversed.
        times_t = torch.arange(x_btd.shape[1], device=x_btd.device)
        reversed_bt = torch.where(frames.valid_bt, -times_t % lengths_b1, times_t)
        high_btf = low_btf[:, :, 1 : (self.dim + 1) // 2].flip(2)
        high_btf = high_btf.gather(1, reversed_bt[:, :, None].expand_as(high_btf))
        return torch.cat([low_btf, high_btf], dim=2)


def fft_over_time(x_btf: Tensor, lengths_b1: Tensor) -> Tensor:
    """Orthonormal transforms of the first n frames each; what lies behind them has to be zero."""
    frames = x_btf.shape[1]
    size = 1 << (2 * frames - 2).bit_length()
    times_m = torch.arange(size, device=x_btf.device)
    chirp_bm = chirp(torch.minimum(times_m, size - times_m), lengths_b1)
    chirp_bt1 = chirp_bm[:, :frames, None]
    spectrum_bmf = torch.fft.fft(x_btf * chirp_bt1, n=size, dim=1)
    spectrum_bmf = spectrum_bmf * torch.fft.fft(chirp_bm.conj(), dim=1)[:, :, None]
    sums_btf = torch.fft.ifft(spectrum_bmf, dim=1)[:, :frames]
    return sums_btf * (chirp_bt1 / lengths_b1.sqrt()[:, :, None])


def chirp(times_m: Tensor, lengths_b1: Tensor) -> Tensor:
    """exp(-i pi t^2 / n): (B, M); t^2 modulo its period 2 n, which keeps it exact."""
    angles_bm = -math.pi * (times_m**2 % (2 * lengths_b1)) / lengths_b1
    return torch.polar(torch.ones_like(angles_bm), angles_bm)
