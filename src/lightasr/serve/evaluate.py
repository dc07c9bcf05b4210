"""`lightasr evaluate`: error rates of a trained model on the recordings of a manifest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd

from lightasr.data.manifests import Entry, read_manifest
from lightasr.errors import LightasrError
from lightasr.progress import track
from lightasr.score.wer import summarize, utterance_errors
from lightasr.serve.recognizer import Recognizer
from lightasr.text.normalize import Normalizer

UTTERANCES_AT_ONCE = 64
BOOTSTRAP_SAMPLES = 1000
TOLD = 3


def read_entries(path: Path, split: str | None = None) -> list[Entry]:
    """The utterances of a manifest; error rates without those that are bad would mislead."""
    rejected: list[tuple[str, str]] = []
    entries = read_manifest(path, rejected, split)
    if rejected:
        told = "; ".join(f"{name}: {reason}" for name, reason in rejected[:TOLD])
        raise LightasrError(f"{path}: {len(rejected)} bad utterances: {told}")
    return entries


def _reference(entry: Entry, path: Path, normalize: Normalizer) -> str:
    """What an utterance's hypothesis is compared with."""
    text = normalize(entry.text)
    if not text:
        raise LightasrError(f"{path}: {entry.id}: no words to compare with in {entry.text!r}")
    return text


def evaluate_manifest(
    recognizer: Recognizer, path: Path, split: str | None = None
) -> dict[str, Any]:
    """WER, CER, counts and seconds over all utterances of a manifest, or of a split of it."""
    entries = read_entries(path, split)
    normalize = Normalizer(recognizer.trained.config.text)
    references = [_reference(entry, path, normalize) for entry in entries]
    hypotheses: list[str] = []
    audio_seconds: list[float] = []
    started = time.monotonic()
    with track(f"evaluate {path.name}", total=len(entries)) as bar:
        for first in range(0, len(entries), UTTERANCES_AT_ONCE):
            some = entries[first : first + UTTERANCES_AT_ONCE]
            recordings = [
                list(recognizer.read(entry.audio, entry.start, entry.seconds, entry.channel))
                for entry in some
            ]
            texts = recognizer.write_down([piece for pieces in recordings for piece in pieces])
            coming = iter(texts)
            for pieces in recordings:
                found = [next(coming) for _ in pieces]
                hypotheses.append(" ".join(text for text in found if text))
                audio_seconds.append(sum(piece.seconds for piece in pieces))
            bar.update(len(some))
    seconds = time.monotonic() - started
    decoded = pd.DataFrame(
        {
            "id": [entry.id for entry in entries],
            "speaker": [entry.speaker for entry in entries],
            "seconds": audio_seconds,
            "reference": references,
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
