"""Reads the transcripts of a part of a corpus from its folder of features."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lightasr.data.cuts import read_cuts
from lightasr.errors import LightasrError

FEATURES = "features/"


def training_transcripts(inputs: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Id and text of every utterance of a stage's inputs `features/<part>`, part by part."""
    parts = sorted(name for name in inputs if name.startswith(FEATURES))
    if not parts:
        raise LightasrError(f"no input '{FEATURES}<part>' holds training transcripts")
    for part in parts:
        yield from read_transcripts(inputs[part])


def read_transcripts(features: Path) -> Iterator[tuple[str, str]]:
    """Id and text of each utterance of a folder of features, without copies at other speeds."""
    for where, cut in read_cuts(features):
        try:
            (supervision,) = cut["supervisions"]
            transcript = str(cut["id"]), str(supervision["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise LightasrError(
                f"{where}: expected a cut with one supervision that has a text ({error!r})"
            ) from None
        yield transcript
