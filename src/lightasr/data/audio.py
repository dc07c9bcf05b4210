"""Reads speech of any format, rate and channel count as mono samples at the rate asked for."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
UNKNOWN_FRAMES = 2**63 - 1  # what libsndfile says of FLAC that was written to a pipe
FLAC_HEAD_BYTES = 42  # the last 16 of them are the MD5 of the samples
# Segments may end this much behind their recording: manifests round their times.
END_TOLERANCE_SECONDS = 0.01


@dataclass(frozen=True)
class Speech:
    """Mono samples at the rate asked for, and what the recording they come from has."""

    samples: Samples
    source_rate: int
    channels: int
    digest: str
    """Of the samples as they lie in their file: equal audio is known by it."""


def read_audio(
    source: Path | BinaryIO, sample_rate: int = SAMPLE_RATE, name: str | None = None
) -> Samples:
    """All samples of a file, or of an open one, whose `name` is for messages."""
    return read_segment(source, sample_rate, name=name).samples


def read_segment(
    source: Path | BinaryIO,
    sample_rate: int = SAMPLE_RATE,
    start: float = 0.0,
    seconds: float | None = None,
    channel: int | None = None,
    *,
    name: str | None = None,
    longest: float | None = None,
) -> Speech:
    """`seconds` from `start` (None: to the end) of a channel (from 0; None: the mean of all).

    More than `longest` seconds are an error, raised before they fill the memory.
    """
    name = name or str(source)
    with _opened(source, name) as audio:
        rate = audio.samplerate
        frames = _seek(audio, start, seconds, name)
        chunks: list[Samples] = []
        done = 0
        content = hashlib.md5(usedforsecurity=False)
        for chunk in _chunks(audio, CHUNK_SECONDS * rate, name, channel, frames, content):
            done += len(chunk)
            if longest is not None and done > longest * rate:
                raise LightasrError(f"{name}: longer than {longest:g} s: cut it into sentences")
            chunks.append(chunk)
        if frames is None and _flac_checksum(source, audio) not in {None, content.digest()}:
            raise LightasrError(
                f"{name}: damaged: its {done} samples do not have the checksum its header tells"
            )
        samples = _resample(np.concatenate(chunks), rate, sample_rate)
        return Speech(samples, rate, audio.channels, content.hexdigest())


def read_blocks(
    source: Path | BinaryIO,
    sample_rate: int,
    block_seconds: float,
    start: float = 0.0,
    seconds: float | None = None,
    channel: int | None = None,
    *,
    name: str | None = None,
) -> Iterator[Samples]:
    """What `read_segment` reads, in consecutive blocks of about `block_seconds`."""
    name = name or str(source)
    with _opened(source, name) as audio:
        # Whole periods of the ratio of rates, so that every block starts on an output sample.
        common = math.gcd(audio.samplerate, sample_rate)
        period_in, period_out = audio.samplerate // common, sample_rate // common
        # What the filter sees to either side of a sample, twice over.
        reach = 2 * math.ceil(LOWPASS_WIDTH * max(1, period_in / period_out) / period_in)
        margin = reach * period_in if period_in != period_out else 0
        block = max(reach, round(block_seconds * audio.samplerate / period_in)) * period_in

        before = np.zeros(0, dtype=np.float32)
        frames = _seek(audio, start, seconds, name)
        chunks = _chunks(audio, block, name, channel, frames)
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
            f"{name}: not audio that can be decoded: {error.error_string or 'damaged'}"
        ) from error


def _check_length(log: str, name: str) -> None:
    if match := _SHORTENED.search(log):
        declared, present = int(match[1]), int(match[2])
        if present < declared < STREAMED_BYTES:
            raise LightasrError(
                f"{name}: cut short: its header says {declared} bytes of audio, it has {present}"
            )


def _flac_checksum(source: Path | BinaryIO, audio: soundfile.SoundFile) -> bytes | None:
    """MD5 of all samples as their encoder saw them: a FLAC file carries it, most others do not."""
    if (audio.format, audio.subtype) != ("FLAC", "PCM_16"):
        return None  # other widths would have to be packed as they were
    if isinstance(source, Path):
        with source.open("rb") as stream:
            head = stream.read(FLAC_HEAD_BYTES)
    else:
        position = source.tell()
        source.seek(0)
        head = source.read(FLAC_HEAD_BYTES)
        source.seek(position)
    checksum = head[-16:]
    return checksum if head.startswith(b"fLaC") and any(checksum) else None


def _seek(audio: soundfile.SoundFile, start: float, seconds: float | None, name: str) -> int | None:
    """Go to where a segment starts; how many frames it has, None for all that follow."""
    if seconds is None and audio.frames == UNKNOWN_FRAMES:
        raise LightasrError(
            f"{name}: its header does not tell its length: write it anew, as with "
            "`ffmpeg -i FILE NEW.flac`"
        )
    if not start and seconds is None:
        return None
    rate, total = audio.samplerate, audio.frames
    first = round(start * rate)
    last = total if seconds is None else round((start + seconds) * rate)
    if first >= total or last > total + END_TOLERANCE_SECONDS * rate:
        end = "the end" if seconds is None else f"{start + seconds:.2f} s"
        raise LightasrError(
            f"{name}: a segment from {start:.2f} s to {end} of a recording of {total / rate:.2f} s"
        )
    audio.seek(first)
    return min(last, total) - first


def _chunks(
    audio: soundfile.SoundFile,
    size: int,
    name: str,
    channel: int | None,
    frames: int | None,
    content: hashlib._Hash | None = None,
) -> Iterator[Samples]:
    """Mono samples, `size` at a time, of the next `frames`; None: of all that follow.

    The header's length is checked, not trusted. All channels go into `content` as they were stored.
    """
    if channel is not None and channel >= audio.channels:
        raise LightasrError(
            f"{name}: no channel {channel}: it has {audio.channels}, counted from 0"
        )
    start, done = audio.tell(), 0
    sixteen_bits = audio.subtype == "PCM_16"
    whole_numbers = audio.subtype.startswith("PCM_")
    while True:
        wanted = size if frames is None else min(size, frames - done)
        chunk = audio.read(wanted, dtype="float32", always_2d=True)
        if not len(chunk):
            break
        if content is not None:
            content.update((chunk * 2**15).astype("<i2") if sixteen_bits else chunk)
        if audio.channels == 1:
            channel = 0
        mono = chunk.mean(axis=1) if channel is None else chunk[:, channel]
        if not (whole_numbers or np.isfinite(mono).all()):
            second = (start + done + int(np.argmin(np.isfinite(mono)))) / audio.samplerate
            raise LightasrError(f"{name}: a sample at {second:.2f} s is not a finite number")
        done += len(mono)
        yield mono
    if not done:
        raise LightasrError(f"{name}: no audio in it (0 samples)")
    expected = audio.frames - start if frames is None else frames
    if done < expected:
        raise LightasrError(
            f"{name}: cut short or damaged: {done} of {expected} samples can be decoded"
        )


def _resample(samples: Samples, rate_in: int, rate_out: int) -> Samples:
    if rate_in == rate_out:
        return samples
    out: Samples = resample(
        torch.from_numpy(samples), rate_in, rate_out, lowpass_filter_width=LOWPASS_WIDTH
    ).numpy()
    return out
