"""`lightasr evaluate`: error rates of a trained model on recordings listed in a TSV."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lightasr.errors import LightasrError
from lightasr.progress import track
from lightasr.score.wer import summarize, utterance_errors
from lightasr.serve.recognizer import Recognizer
from lightasr.text.normalize import normalize

COLUMNS = ("id", "speaker", "audio", "text")
UTTERANCES_AT_ONCE = 64
BOOTSTRAP_SAMPLES = 1000


@dataclass(frozen=True)
class Entry:
    """A line of a manifest."""

    id: str
    speaker: str
    audio: Path
    text: str


def read_manifest(path: Path) -> list[Entry]:
    """Tab-separated `id speaker audio text` with a header; audio paths relative to the file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise LightasrError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise LightasrError(f"{path}: not UTF-8 text: {error.reason}") from None
    header = lines[0].split("\t") if lines else []
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise LightasrError(f"{path}: no column {', '.join(missing)} (tab-separated header)")
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) != len(header):
            raise LightasrError(f"{path}:{number}: {len(fields)} fields, expected {len(header)}")
        row = dict(zip(header, fields, strict=True))
        text = normalize(row["text"])
        if not text:
            raise LightasrError(f"{path}:{number}: '{row['id']}' has no text to compare with")
        if row["id"] in entries:
            raise LightasrError(f"{path}:{number}: id '{row['id']}' is there twice")
        audio = path.parent / row["audio"]
        if not audio.is_file():
            raise LightasrError(f"{path}:{number}: no audio file {audio}")
        entries[row["id"]] = Entry(row["id"], row["speaker"], audio, text)
    if not entries:
        raise LightasrError(f"{path}: no utterances in it")
    return list(entries.values())


def evaluate_manifest(recognizer: Recognizer, path: Path) -> dict[str, Any]:
    """WER, CER, counts and seconds over all utterances of a manifest."""
    entries = read_manifest(path)
    hypotheses: list[str] = []
    audio_seconds: list[float] = []
    started = time.monotonic()
    with track(f"evaluate {path.name}", total=len(entries)) as bar:
        for first in range(0, len(entries), UTTERANCES_AT_ONCE):
            some = entries[first : first + UTTERANCES_AT_ONCE]
            recordings = [list(recognizer.read(entry.audio)) for entry in some]
            texts = recognizer.write_down([piece for pieces in recordings for piece in pieces])
            coming = iter(texts)
            for pieces in recordings:
                found = [next(coming) for _ in pieces]
                hypotheses.append(" ".join(text for text in found if text))
                samples = sum(len(piece) for piece in pieces)
                audio_seconds.append(samples / recognizer.sample_rate)
            bar.update(len(some))
    seconds = time.monotonic() - started
    decoded = pd.DataFrame(
        {
            "id": [entry.id for entry in entries],
            "speaker": [entry.speaker for entry in entries],
            "seconds": audio_seconds,
            "reference": [entry.text for entry in entries],
            "hypothesis": hypotheses,
        }
    )
    return {
        **summarize(utterance_errors(decoded), BOOTSTRAP_SAMPLES, seed=1),
        "audio_seconds": sum(audio_seconds),
        "seconds": seconds,
    }


def summary_text(result: dict[str, Any]) -> str:
    """The numbers for a person."""
    interval = ""
    if result["wer_low"] is not None:
        interval = f" [{100 * result['wer_low']:.2f}, {100 * result['wer_high']:.2f}]"
    return "\n".join(
        [
            f"WER {100 * result['wer']:.2f} %{interval}, CER {100 * result['cer']:.2f} %",
            f"{result['words']} words: {result['substitutions']} substituted, "
            f"{result['insertions']} inserted, {result['deletions']} deleted",
            f"{result['utterances']} utterances of {result['speakers']} speakers, "
            f"{result['audio_seconds']:.1f} s of audio in {result['seconds']:.1f} s",
        ]
    )
