"""Frames: they are Kaldi's, Deep Speech 2's spectrogram, or parts of quaternions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi as kaldi
from hypothesis import given
from hypothesis import strategies as st

from lightasr import schema
from lightasr.data.spectra import compute_features, with_derivatives
from lightasr.errors import LightasrError


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("mels", [40, 80])
@pytest.mark.parametrize(
    ("rate", "window", "shift"), [(16000, 25.0, 10.0), (8000, 20.0, 10.0), (22050, 32.0, 12.5)]
)
def test_mel_energies_are_torchaudios(rate: int, window: float, shift: float, mels: int) -> None:
    samples = noise(2 * rate)
    config = schema.Features(sample_rate=rate, mels=mels, window_ms=window, shift_ms=shift)  # type: ignore[arg-type]
    expected = kaldi.fbank(
        torch.from_numpy(samples)[None] * 2**15,
        num_mel_bins=mels,
        sample_frequency=rate,
        frame_length=window,
        frame_shift=shift,
        dither=0.0,
        snip_edges=False,
    )
    torch.testing.assert_close(compute_features(samples, config), expected, atol=1e-3, rtol=0)


def test_the_spectrogram_has_deep_speechs_161_bins_and_shows_a_tone_where_it_is() -> None:
    config = schema.Features(kind="spectrogram", window_ms=20.0)
    time = np.arange(16000) / 16000
    frames = compute_features(np.sin(2 * np.pi * 3000 * time).astype(np.float32), config)
    assert frames.shape == (100, 161)
    assert set(frames[2:-2].argmax(1).tolist()) == {3000 // 50}


def test_a_quaternion_is_an_energy_and_its_first_three_derivatives() -> None:
    ramp = torch.arange(50.0)[:, None] ** 2  # derivatives 2 t, 2 and 0
    energy, first, second, third = with_derivatives(ramp)[20:30].T
    torch.testing.assert_close(energy, ramp[20:30, 0])
    torch.testing.assert_close(first, 2 * torch.arange(20.0, 30.0))
    torch.testing.assert_close(second, torch.full((10,), 2.0))
    torch.testing.assert_close(third, torch.zeros(10))


@given(
    kind=st.sampled_from(["fbank", "spectrogram", "quaternion"]),
    samples=st.integers(0, 3000),
    window=st.sampled_from([20.0, 25.0]),
)
def test_frames_are_finite_and_as_wide_as_the_config_says(
    kind: str, samples: int, window: float
) -> None:
    config = schema.Features(kind=kind, mels=20, window_ms=window)  # type: ignore[arg-type]
    if samples < config.window_samples:
        with pytest.raises(LightasrError, match="less than a frame"):
            compute_features(noise(samples), config)
        return
    frames = compute_features(np.zeros(samples, np.float32), config)
    assert frames.shape[1] == config.dim
    assert frames.isfinite().all()
    assert abs(len(frames) - samples / 160) <= 1
