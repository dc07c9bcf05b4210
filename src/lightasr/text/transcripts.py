"""Reads the transcripts of a part of a corpus from its folder of features."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from lightasr.errors import LightasrError

CUTS = "cuts.jsonl.gz"
FEATURES = "features/"


def training_transcripts(inputs: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Id and text of every utterance of a stage's inputs `features/<part>`, part by part."""
    parts = sorted(name for name in inputs if name.startswith(FEATURES))
    if not parts:
        raise LightasrError(f"no input '{FEATURES}<part>' holds training transcripts")
    for part in parts:
        yield from read_transcripts(inputs[part])


def read_transcripts(features: Path) -> Iterator[tuple[str, str]]:
    """Id and text of every utterance in a folder of features; copies at other speeds are left out.

    Plain JSON rather than lhotse: texts alone do not need the second its import takes.
    """
    path = features / CUTS
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if (transcript := _transcript(line, f"{path}:{number}")) is not None:
                    yield transcript
    except FileNotFoundError:
        raise LightasrError(f"{path}: no such file; run the stage `features` first") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise LightasrError(f"{path}: not readable: {error}") from error


def _transcript(line: str, where: str) -> tuple[str, str] | None:
    try:
        cut = json.loads(line)
        if "speed" in (cut.get("custom") or {}):
            return None
        (supervision,) = cut["supervisions"]
        return str(cut["id"]), str(supervision["text"])
    except (ValueError, KeyError, TypeError) as error:
        raise LightasrError(
            f"{where}: expected a cut with one supervision that has a text ({error!r})"
        ) from None
