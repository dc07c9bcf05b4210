"""Reads the transcripts of a part of a corpus from its folder of features."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lightasr.data.cuts import read_cuts
from lightasr.data.labels import read_labels
from lightasr.errors import LightasrError

FEATURES = "features/"


def training_transcripts(inputs: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Id and text of every utterance of a stage's inputs `features/<part>`, part by part.

    With an input `labels`, of those utterances alone.
    """
    parts = sorted(name for name in inputs if name.startswith(FEATURES))
    if not parts:
        raise LightasrError(f"no input '{FEATURES}<part>' holds training transcripts")
    labels = read_labels(inputs)
    for part in parts:
        for name, text in read_transcripts(inputs[part]):
            if labels is None or name in labels:
                yield name, text


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
