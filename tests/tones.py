"""A corpus of tones for tests: each letter is a pitch, so that a tiny model learns it at once."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16_000
LETTER_SECONDS = 0.12
LETTERS = "ABCDE"


def tone(text: str, rng: np.random.Generator) -> np.ndarray:
    """A transcript as a melody, a space as silence, in a little noise."""
    time = np.arange(round(LETTER_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    fade = np.hanning(len(time))
    notes = [
        np.sin(2 * np.pi * (400 * 1.5 ** LETTERS.index(letter)) * time) * fade
        if letter != " "
        else np.zeros_like(time)
        for letter in text
    ]
    return 0.3 * np.concatenate(notes) + 0.001 * rng.standard_normal(len(time) * len(text))


def sentences(count: int, seed: int) -> list[str]:
    """Made-up words of made-up letters."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list(LETTERS), rng.integers(2, 5))) for _ in range(12)]
    return [" ".join(rng.choice(words, rng.integers(2, 6))) for _ in range(count)]


def flac(samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, sample_rate, format="FLAC")
    return stream.getvalue()


def chapter(part: str, speaker: int, texts: list[str], seed: int = 0) -> dict[str, bytes]:
    """The files of one speaker's chapter in LibriSpeech's layout."""
    rng = np.random.default_rng([seed, speaker])
    folder, stem = f"LibriSpeech/{part}/{speaker}/1", f"{speaker}-1"
    files = {}
    lines = []
    for number, text in enumerate(texts):
        files[f"{folder}/{stem}-{number:04d}.flac"] = flac(tone(text, rng))
        lines.append(f"{stem}-{number:04d} {text}\n")
    files[f"{folder}/{stem}.trans.txt"] = "".join(lines).encode()
    return files


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    """A tar.gz of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, payload in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))
    return path
