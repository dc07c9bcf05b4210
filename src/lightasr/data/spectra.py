"""From samples to the frames a model reads: mel energies, spectrograms, quaternions.

Mel energies are Kaldi's, as torchaudio has them, in fewer steps: what does not change is made once,
what is linear is done to the signal instead of to its overlapping frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.functional import compute_deltas

from lightasr import schema
from lightasr.data.audio import Samples
from lightasr.errors import LightasrError

KALDI_SCALE = 2**15  # Kaldi reads 16-bit samples as they are: its floors are those of integers
PREEMPHASIS = 0.97
LOWEST_HZ = 20.0
FLOOR = torch.finfo(torch.float32).eps
DERIVATIVES = 3


@torch.no_grad()
def compute_features(samples: Samples, config: schema.Features) -> Tensor:
    """Frames (T, F) of mono samples at the configured rate, by `features.kind`."""
    window, shift = config.window_samples, config.shift_samples
    if len(samples) < window:
        raise LightasrError(
            f"{len(samples) / config.sample_rate:.3f} s of audio is less than a frame"
        )
    signal_n = reflected(torch.from_numpy(samples) * KALDI_SCALE, window, shift)
    if config.kind == "spectrogram":
        frames_tw = signal_n.unfold(0, window, shift) * torch.hann_window(window, periodic=False)
        return _power(frames_tw, window).clamp(min=FLOOR).log()
    mel = _mel(config.sample_rate, window, config.mels)
    power_tb = _power(emphasised(signal_n, mel.window_w, shift), mel.fft)
    energies_tf = (power_tb @ mel.bands_bf).clamp(min=FLOOR).log()
    return with_derivatives(energies_tf) if config.kind == "quaternion" else energies_tf


def reflected(signal_n: Tensor, window: int, shift: int) -> Tensor:
    """The signal with its ends mirrored, so that it has a frame for each `shift` samples."""
    frames = (len(signal_n) + shift // 2) // shift
    before = window // 2 - shift // 2
    after = (frames - 1) * shift + window - before - len(signal_n)
    if before < 0:  # windows that do not even touch
        signal_n, before = signal_n[-before:], 0
    mirrored = signal_n.flip(0)
    left = mirrored[len(mirrored) - before :]
    return torch.cat([left, signal_n, mirrored[: max(after, 0)]])


def emphasised(signal_n: Tensor, window_w: Tensor, shift: int) -> Tensor:
    """Windowed frames without their mean, high frequencies emphasised.

    Of the mean m, x[t] - m - 0.97 (x[t-1] - m) leaves 0.03 m to take away. A frame's first sample
    has none before it, but the window makes it zero anyway.
    """
    means_t1 = signal_n.unfold(0, len(window_w), shift).mean(1, keepdim=True)
    rising_n = torch.cat([signal_n[:1], signal_n[1:] - PREEMPHASIS * signal_n[:-1]])
    frames_tw = rising_n.unfold(0, len(window_w), shift)
    return (frames_tw - (1 - PREEMPHASIS) * means_t1) * window_w


def _power(frames_tw: Tensor, fft: int) -> Tensor:
    """(T, W) frames to the power in each bin of their spectrum."""
    spectrum_tb = torch.fft.rfft(frames_tw, n=fft)
    return spectrum_tb.real.square() + spectrum_tb.imag.square()


@dataclass(frozen=True)
class Mel:
    """What turns windowed frames into mel energies."""

    window_w: Tensor
    fft: int
    bands_bf: Tensor


@cache
def _mel(sample_rate: int, window: int, mels: int) -> Mel:
    """Kaldi's: Povey's window, an FFT over a power of two samples, triangles from 20 Hz up."""
    fft = 1 << (window - 1).bit_length()
    bands_fb, _ = get_mel_banks(mels, fft, sample_rate, LOWEST_HZ, 0.0, 100.0, -500.0, 1.0)
    bands_bf = torch.nn.functional.pad(bands_fb, (0, 1)).T.contiguous()
    return Mel(torch.hann_window(window, periodic=False).pow(0.85), fft, bands_bf)


def with_derivatives(energies_tf: Tensor) -> Tensor:
    """(T, F) energies E to (T, 4 F): the parts (E, d, dd, ddd) of F quaternions, part by part."""
    parts = [energies_tf.T]
    for _ in range(DERIVATIVES):
        parts.append(compute_deltas(parts[-1]))
    return torch.cat(parts).T.contiguous()
