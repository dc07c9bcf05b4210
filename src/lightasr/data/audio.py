"""Reads speech of any format, rate and channel count as mono samples at the rate asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torchaudio.functional import resample

from lightasr.errors import LightasrError

Samples = NDArray[np.float32]

SAMPLE_RATE = 16_000
CHUNK_SECONDS = 60
LOWPASS_WIDTH = 6  # zero crossings of the resampling filter: torchaudio's default
# libsndfile quietly shortens a WAV or AIFF file that lacks its end; only its log tells.
_SHORTENED = re.compile(r"(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)")
STREAMED_BYTES = 0x7FFF_0000  # programs that write to a pipe put a length like this in the header


def read_audio(
    source: Path | BinaryIO, sample_rate: int = SAMPLE_RATE, name: str | None = None
) -> Samples:
    """All samples of a file, or of an open one, whose `name` is for messages."""
    name = name or str(source)
    with _opened(source, name) as audio:
        chunks = list(_chunks(audio, CHUNK_SECONDS * audio.samplerate, name))
        return _resample(np.concatenate(chunks), audio.samplerate, sample_rate)


def read_blocks(
    source: Path | BinaryIO, sample_rate: int, seconds: float, name: str | None = None
) -> Iterator[Samples]:
    """Consecutive blocks of about `seconds` of a long file: together what `read_audio` returns."""
    name = name or str(source)
    with _opened(source, name) as audio:
        # Whole periods of the ratio of rates, so that every block starts on an output sample.
        common = math.gcd(audio.samplerate, sample_rate)
        period_in, period_out = audio.samplerate // common, sample_rate // common
        # What the filter sees to either side of a sample, twice over.
        reach = 2 * math.ceil(LOWPASS_WIDTH * max(1, period_in / period_out) / period_in)
        margin = reach * period_in if period_in != period_out else 0
        block = max(reach, round(seconds * audio.samplerate / period_in)) * period_in

        before = np.zeros(0, dtype=np.float32)
        chunks = _chunks(audio, block, name)
        pending = next(chunks)
        for following in chunks:
            yield _middle(before, pending, following[:margin], period_in, period_out)
            before = np.concatenate([before, pending])[-margin:] if margin else before
            pending = following
        yield _middle(before, pending, pending[:0], period_in, period_out)


def _middle(
    before: Samples, block: Samples, after: Samples, period_in: int, period_out: int
) -> Samples:
    """The block at the new rate, filtered with what lies before and after it."""
    if period_in == period_out:
        return block
    joined = _resample(np.concatenate([before, block, after]), period_in, period_out)
    start = len(before) // period_in * period_out
    return joined[start : start + math.ceil(len(block) * period_out / period_in)]


@contextmanager
def _opened(source: Path | BinaryIO, name: str) -> Iterator[soundfile.SoundFile]:
    if isinstance(source, Path) and not source.is_file():
        raise LightasrError(f"{name}: no such audio file")
    if name.lower().endswith(".raw"):
        raise LightasrError(f"{name}: samples without a header; convert them to WAV or FLAC")
    try:
        with soundfile.SoundFile(source) as audio:
            _check_length(audio.extra_info, name)
            yield audio
    except soundfile.LibsndfileError as error:
        raise LightasrError(
            f"{name}: not audio that can be decoded: {error.error_string}"
        ) from error


def _check_length(log: str, name: str) -> None:
    if match := _SHORTENED.search(log):
        declared, present = int(match[1]), int(match[2])
        if present < declared < STREAMED_BYTES:
            raise LightasrError(
                f"{name}: cut short: its header says {declared} bytes of audio, it has {present}"
            )


def _chunks(audio: soundfile.SoundFile, frames: int, name: str) -> Iterator[Samples]:
    """Mono samples, `frames` at a time; the header's length is checked, not trusted."""
    done = 0
    while len(chunk := audio.read(frames, dtype="float32", always_2d=True)):
        mono = chunk.mean(axis=1)
        if not np.isfinite(mono).all():
            second = (done + int(np.argmin(np.isfinite(mono)))) / audio.samplerate
            raise LightasrError(f"{name}: a sample at {second:.2f} s is not a finite number")
        done += len(mono)
        yield mono
    if not done:
        raise LightasrError(f"{name}: no audio in it (0 samples)")
    if done < audio.frames:
        raise LightasrError(
            f"{name}: cut short or damaged: {done} of {audio.frames} samples can be decoded"
        )


def _resample(samples: Samples, rate_in: int, rate_out: int) -> Samples:
    if rate_in == rate_out:
        return samples
    out: Samples = resample(
        torch.from_numpy(samples), rate_in, rate_out, lowpass_filter_width=LOWPASS_WIDTH
    ).numpy()
    return out
