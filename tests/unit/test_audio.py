"""Audio of any kind becomes mono samples at one rate; what cannot be read is named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lightasr.data.audio import Samples, read_audio, read_blocks, read_segment
from lightasr.errors import LightasrError

REAL_SPEECH = Path(__file__).parents[2].parent / "shared" / "data"


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> Samples:
    time = np.arange(int(rate * seconds)) / rate
    return (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def encode(samples: Samples, rate: int = 16000, kind: str = "WAV", subtype: str = "") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype or None)
    return buffer.getvalue()


def read(content: bytes) -> Samples:
    return read_audio(io.BytesIO(content), name="part.tar:a/b.flac")


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_any_rate(rate: int) -> None:
    samples = read(encode(tone(rate, hertz=1000.0), rate, subtype="FLOAT"))
    assert samples.dtype == np.float32
    assert len(samples) == 16000
    middle = slice(1000, -1000)  # the filter rings at the ends
    np.testing.assert_allclose(samples[middle], tone(16000, hertz=1000.0)[middle], atol=0.004)


def test_channels_are_averaged() -> None:
    left, right = tone(16000), tone(16000, hertz=300.0)
    stereo = np.stack([left, right], axis=1)
    mono = read(encode(stereo, subtype="FLOAT"))
    np.testing.assert_allclose(mono, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [("FLAC", "", 1e-4), ("MP3", "", 0.05), ("OGG", "VORBIS", 0.05), ("OGG", "OPUS", 0.05)],
)
def test_compressed_formats(kind: str, subtype: str, error: float) -> None:
    samples = read(encode(tone(16000), kind=kind, subtype=subtype))
    assert len(samples) == 16000
    middle = slice(2000, -2000)
    np.testing.assert_allclose(samples[middle], tone(16000)[middle], atol=error)


def test_a_path_reads_like_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(tone(22050), 22050))
    np.testing.assert_array_equal(read_audio(path), read(path.read_bytes()))


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("seconds", [0.04, 0.3, 60.0])
def test_blocks_together_are_the_whole(rate: int, seconds: float) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 2 * rate + 77).astype(np.float32)
    content = encode(noise, rate, subtype="FLOAT")
    blocks = list(read_blocks(io.BytesIO(content), 16000, seconds, name="noise"))
    np.testing.assert_allclose(np.concatenate(blocks), read(content), atol=1e-6)
    assert len({len(block) for block in blocks[:-1]}) <= 1
    if seconds == 0.3:
        assert abs(len(blocks[0]) - 4800) < 160


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG"])
def test_a_segment_is_that_stretch_of_the_recording(kind: str) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 5 * 16000).astype(np.float32)
    content = encode(noise, kind=kind)
    speech = read_segment(io.BytesIO(content), 16000, 1.25, 2.5, name="noise")
    np.testing.assert_allclose(speech.samples, read(content)[20000:60000], atol=1e-6)
    rest = read_segment(io.BytesIO(content), 16000, 4.5, name="noise")
    assert len(rest.samples) == 8000


def test_blocks_of_a_segment_together_are_the_segment() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (3 * 44100, 2)).astype(np.float32)
    content = encode(noise, 44100, subtype="FLOAT")
    segment = (0.7, 1.9, 1)
    blocks = list(read_blocks(io.BytesIO(content), 16000, 0.3, *segment, name="noise"))
    whole = read_segment(io.BytesIO(content), 16000, *segment, name="noise").samples
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)


def test_one_channel_is_read_alone_and_the_source_is_described() -> None:
    left, right = tone(8000), tone(8000, hertz=300.0)
    content = encode(np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    speech = read_segment(io.BytesIO(content), 8000, channel=1, name="call")
    np.testing.assert_array_equal(speech.samples, right)
    assert (speech.source_rate, speech.channels) == (8000, 2)
    with pytest.raises(LightasrError, match="call: no channel 2: it has 2, counted from 0"):
        read_segment(io.BytesIO(content), 8000, channel=2, name="call")


@pytest.mark.parametrize(
    ("start", "seconds", "message"),
    [
        (0.5, 0.6, "a segment from 0.50 s to 1.10 s of a recording of 1.00 s"),
        (1.0, None, "a segment from 1.00 s to the end of a recording of 1.00 s"),
        (0.5, 1e-6, r"no audio in it \(0 samples\)"),
    ],
)
def test_a_segment_beyond_the_recording_is_named(
    start: float, seconds: float | None, message: str
) -> None:
    with pytest.raises(LightasrError, match=f"^call: {message}$"):
        read_segment(io.BytesIO(encode(tone(16000))), 16000, start, seconds, name="call")


def test_rounded_times_may_end_a_moment_behind_the_recording() -> None:
    speech = read_segment(io.BytesIO(encode(tone(16000))), 16000, 0.5, 0.509, name="call")
    assert len(speech.samples) == 8000


def test_what_is_longer_than_wanted_is_not_read_to_its_end() -> None:
    long = encode(np.zeros(200 * 8000, dtype=np.float32), 8000, kind="FLAC")
    assert len(read_segment(io.BytesIO(long), 8000, name="a", longest=200).samples) == 1_600_000
    with pytest.raises(LightasrError, match="a: longer than 50 s"):
        read_segment(io.BytesIO(long), 8000, name="a", longest=50)


def with_value(value: float) -> Samples:
    samples = tone(16000)
    samples[8000] = value
    return samples


FLAC = encode(np.random.default_rng(1).normal(0, 0.1, 32000).astype(np.float32), kind="FLAC")
DAMAGED = bytes([*FLAC[:9000], *bytes(500), *FLAC[9500:]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not audio that can be decoded"),
        (b"no audio at all " * 100, "not audio that can be decoded"),
        (FLAC[: len(FLAC) // 2], "not audio that can be decoded"),
        (DAMAGED, "not audio that can be decoded"),
        (encode(tone(16000))[:9000], "cut short: its header says 32000 bytes of audio"),
        (encode(tone(16000), kind="MP3")[:2000], "cut short or damaged: .* of 16000 samples"),
        (encode(tone(16000)[:0]), r"no audio in it \(0 samples\)"),
        (encode(with_value(np.nan), subtype="FLOAT"), "a sample at 0.50 s is not a finite number"),
        (encode(with_value(-np.inf), subtype="FLOAT"), "a sample at 0.50 s is not a finite"),
    ],
    ids=["empty", "text", "cut flac", "damaged flac", "cut wav", "cut mp3", "0 s", "nan", "inf"],
)
def test_unreadable_audio_is_named(content: bytes, message: str) -> None:
    with pytest.raises(LightasrError, match=rf"^part\.tar:a/b\.flac: {message}"):
        read(content)
    with pytest.raises(LightasrError, match=message):
        list(read_blocks(io.BytesIO(content), 16000, 0.25, name="blocks"))


def test_a_length_unknown_when_the_header_was_written_is_no_damage() -> None:
    content = bytearray(encode(tone(16000)))
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"  # as ffmpeg does when it writes to a pipe
    assert len(read(bytes(content))) == 16000


def test_paths_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match=r"gone\.wav: no such audio file"):
        read_audio(tmp_path / "gone.wav")
    (tmp_path / "a.raw").write_bytes(bytes(64))
    with pytest.raises(LightasrError, match=r"a\.raw: samples without a header"):
        read_audio(tmp_path / "a.raw")


@pytest.mark.skipif(not REAL_SPEECH.is_dir(), reason="real speech in ../shared/data is absent")
@pytest.mark.parametrize("kind", ["flac", "mp3", "ogg"])
def test_real_speech(kind: str) -> None:
    samples = read_audio(next(REAL_SPEECH.rglob(f"*.{kind}")))
    assert len(samples) > 8000
    assert 0.001 < float(np.sqrt(np.mean(samples**2))) < 0.5
