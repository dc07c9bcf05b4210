"""From samples to the frames a model reads: mel energies, spectrograms, quaternions."""

from __future__ import annotations

from functools import cache

import torch
from lhotse.features.kaldi.layers import Wav2LogFilterBank, Wav2LogSpec
from torch import Tensor, nn
from torchaudio.functional import compute_deltas

from lightasr import schema
from lightasr.data.audio import Samples
from lightasr.errors import LightasrError

KALDI_SCALE = 2**15  # Kaldi reads 16-bit samples as they are: its floors are those of integers
DERIVATIVES = 3


@torch.no_grad()
def compute_features(samples: Samples, config: schema.Features) -> Tensor:
    """Frames (T, F) of mono samples at the configured rate, by `features.kind`."""
    if len(samples) < config.window_samples:
        raise LightasrError(
            f"{len(samples) / config.sample_rate:.3f} s of audio is less than a frame"
        )
    signal = torch.from_numpy(samples)[None] * KALDI_SCALE
    frames_tf: Tensor = _transform(
        config.kind, config.sample_rate, config.window_ms, config.shift_ms, config.mels
    )(signal)[0]
    return with_derivatives(frames_tf) if config.kind == "quaternion" else frames_tf


@cache
def _transform(
    kind: str, sample_rate: int, window_ms: float, shift_ms: float, mels: int
) -> nn.Module:
    """lhotse's layers: Kaldi's definition, with windows and mel filters made once."""
    window, shift = window_ms / 1000, shift_ms / 1000
    if kind == "spectrogram":
        return Wav2LogSpec(
            sample_rate,
            window,
            shift,
            round_to_power_of_two=False,
            remove_dc_offset=False,
            preemph_coeff=0.0,
            window_type="hanning",
            use_energy=False,
        )
    return Wav2LogFilterBank(sample_rate, window, shift, num_filters=mels, high_freq=0.0)


def with_derivatives(energies_tf: Tensor) -> Tensor:
    """(T, F) energies E to (T, 4 F): the parts (E, d, dd, ddd) of F quaternions, part by part."""
    parts = [energies_tf.T]
    for _ in range(DERIVATIVES):
        parts.append(compute_deltas(parts[-1]))
    return torch.cat(parts).T.contiguous()
