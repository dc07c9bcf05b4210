"""`lightasr transcribe`: what is said in audio files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lightasr.errors import LightasrError
from lightasr.serve.recognizer import Recognizer

PIECES_AT_ONCE = 6


def transcribe_files(recognizer: Recognizer, paths: list[Path]) -> Iterator[tuple[str, str]]:
    """Each file's name and text, in order."""
    for path in paths:
        if not path.is_file():
            raise LightasrError(f"{path}: no such audio file")
    for path in paths:
        texts: list[str] = []
        recording = recognizer.read(path)
        while pieces := list(islice(recording, PIECES_AT_ONCE)):
            texts += recognizer.write_down(pieces)
        yield str(path), " ".join(text for text in texts if text)
