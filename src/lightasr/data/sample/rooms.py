"""Between mouth and file: sampling rate, level, room and background noise, all in float64.

Gains are rounded and the resampler's arithmetic is exact, so that neither the number of threads nor
the width of the processor's vectors can reach the 16 bits that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float64]

SAMPLE_RATE = 16_000
FULL_SCALE = 32_768.0

# 22,050 Hz to 16,000 Hz in lowest terms.
_UP, _DOWN = 320, 441
# Taps on either side of the resampler's kernel, in input samples, and the edge of its pass band as
# a share of the output's Nyquist frequency.
_HALF_WIDTH, _PASS_BAND = 48, 0.94
# The kernel in fixed point: with 16-bit input every product and sum is an integer below 2^53, hence
# exact in float64 in whatever order the matrix product adds them.
_KERNEL_SCALE = 2.0**24

# A peak above this is turned down, for a clipped transcript is nobody's voice.
_HIGHEST_PEAK = 0.9


def resample(samples: npt.NDArray[np.int16]) -> Signal:
    """From 22,050 Hz to SAMPLE_RATE by a windowed sinc; full scale becomes 1."""
    blocks = -(-len(samples) // _DOWN)
    padded = np.zeros(blocks * _DOWN + 2 * _HALF_WIDTH)
    padded[_HALF_WIDTH : _HALF_WIDTH + len(samples)] = samples
    span = _DOWN + 2 * _HALF_WIDTH
    windows = np.lib.stride_tricks.sliding_window_view(padded, span)[::_DOWN]
    resampled = (windows @ _resampler()).reshape(-1)
    return resampled[: len(samples) * _UP // _DOWN] / (_KERNEL_SCALE * FULL_SCALE)


@cache
def _resampler() -> Signal:
    """The matrix that turns one block of input, with its margins, into _UP output samples."""
    centre = np.arange(_UP) * _DOWN / _UP + _HALF_WIDTH
    offset = np.arange(_DOWN + 2 * _HALF_WIDTH)[:, None] - centre[None, :]
    cutoff = _PASS_BAND * _UP / _DOWN
    inside = np.abs(offset) < _HALF_WIDTH
    hann = np.where(inside, 0.5 + 0.5 * np.cos(np.pi * offset / _HALF_WIDTH), 0.0)
    kernel: Signal = np.round(cutoff * np.sinc(cutoff * offset) * hann * _KERNEL_SCALE)
    return kernel


def set_level(signal: Signal, decibels: float) -> Signal:
    """Scale to a level relative to full scale, lower where the peak would come near clipping."""
    gain = 10 ** (decibels / 20) / _rms(signal)
    return signal * round(min(gain, _HIGHEST_PEAK / float(np.abs(signal).max())), 6)


def level(signal: Signal) -> float:
    """Decibels relative to full scale."""
    return 20 * float(np.log10(_rms(signal)))


def trim(signal: Signal, decibels: float = 50.0) -> Signal:
    """Cut what lies below the peak by more than `decibels` off both ends."""
    loud = np.flatnonzero(np.abs(signal) > np.abs(signal).max() * 10 ** (-decibels / 20))
    return signal[loud[0] : loud[-1] + 1]


def surround_with_silence(signal: Signal, rng: np.random.Generator) -> Signal:
    """Let the recording start before the speaker and end after."""
    before, after = rng.integers(SAMPLE_RATE // 10, SAMPLE_RATE // 3, size=2)
    return np.pad(signal, (int(before), int(after)))


def add_room(signal: Signal, rng: np.random.Generator) -> Signal:
    """Reverberate: the direct sound, then a tail of noise that fades by 60 dB in 0.15 to 0.4 s."""
    fade_seconds = rng.uniform(0.15, 0.4)
    direct_to_tail_decibels = rng.uniform(6.0, 14.0)
    time = np.arange(int(fade_seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / fade_seconds)
    # The first reflection comes a few milliseconds after the direct sound.
    response[: int(rng.uniform(0.002, 0.008) * SAMPLE_RATE)] = 0.0
    response *= 10 ** (-direct_to_tail_decibels / 20) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    return _convolve(signal, response)[: len(signal)]


def add_noise(signal: Signal, noise: Signal, signal_to_noise: float) -> Signal:
    """Mix noise of the same length in, `signal_to_noise` decibels below the signal."""
    gain = _rms(signal) / _rms(noise) * 10 ** (-signal_to_noise / 20)
    return signal + noise * round(gain, 9)


def white_noise(length: int, rng: np.random.Generator) -> Signal:
    """The hiss of a microphone."""
    return rng.standard_normal(length)


def pink_noise(length: int, rng: np.random.Generator) -> Signal:
    """Noise that falls by 3 dB an octave, as of wind and ventilation."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    shape = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(shape, 30.0)), length)


def hum(length: int, rng: np.random.Generator) -> Signal:
    """The mains: 50 Hz, its harmonics and some hiss."""
    time = np.arange(length) / SAMPLE_RATE
    harmonics = sum(
        np.sin(2 * np.pi * (50 * order * time + rng.uniform())) / order for order in range(1, 40)
    )
    return np.asarray(harmonics + 0.2 * rng.standard_normal(length), dtype=np.float64)


def babble(length: int, talkers: Sequence[Signal], rng: np.random.Generator) -> Signal:
    """Several people at once, each entering at a random place of what they say."""
    crowd = np.zeros(length)
    for talker in talkers:
        start = int(rng.integers(len(talker)))
        crowd += np.resize(np.roll(talker, -start), length) / _rms(talker)
    return crowd


def to_int16(signal: Signal) -> npt.NDArray[np.int16]:
    """The 16 bits that are stored."""
    scaled = np.round(signal * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _convolve(signal: Signal, response: Signal) -> Signal:
    length = len(signal) + len(response) - 1
    # A power of two keeps every transform fast.
    size = 1 << (length - 1).bit_length()
    spectrum = np.fft.rfft(signal, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[:length]


def _rms(signal: Signal) -> float:
    return float(np.sqrt(np.mean(signal**2)))
