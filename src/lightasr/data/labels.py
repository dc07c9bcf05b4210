"""Stage `labels`: which transcripts of the training parts an experiment with few labels may use."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from lightasr import schema
from lightasr.data.cuts import read_cuts
from lightasr.errors import LightasrError

LABELS = "labels.tsv"
HEADER = ("id", "speaker", "seconds")


class Labelled(NamedTuple):
    """An utterance whose transcript is known."""

    id: str
    speaker: str
    seconds: float


def run(
    config: schema.LabelsSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """Write `labels.tsv`, a line an utterance."""
    utterances = [each for path in inputs.values() for each in _utterances(path)]
    chosen = choose(utterances, 60 * config.label_minutes)
    with (out / LABELS).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerows([HEADER, *chosen])
    return {
        "utterances": len(chosen),
        "speakers": len({each.speaker for each in chosen}),
        "audio_seconds": sum(each.seconds for each in chosen),
    }


def choose(utterances: Sequence[Labelled], seconds: float) -> list[Labelled]:
    """As many utterances as fit into `seconds`, one of each speaker in turn.

    Their order is that of a digest of their ids: it depends neither on the machine nor on the
    budget, so that a smaller budget's are all among a larger one's.
    """
    total = sum(each.seconds for each in utterances)
    if seconds > total:
        raise LightasrError(
            f"corpus.label_minutes: {seconds / 60:g}, but the training parts last "
            f"{total / 60:.4g} minutes"
        )
    by_speaker: dict[str, list[Labelled]] = defaultdict(list)
    for each in sorted(utterances, key=lambda each: lot(each.id)):
        by_speaker[each.speaker].append(each)
    speakers = sorted(by_speaker, key=lot)
    chosen: list[Labelled] = []
    left = seconds
    for turn in zip_longest(*(by_speaker[speaker] for speaker in speakers)):
        for each in filter(None, turn):
            if each.seconds > left:
                if not chosen:
                    raise LightasrError(
                        f"corpus.label_minutes: {seconds / 60:g}: less than the first utterance, "
                        f"{each.id} of {each.seconds:.1f} s"
                    )
                return chosen
            chosen.append(each)
            left -= each.seconds
    return chosen


def read_labels(inputs: Mapping[str, Path]) -> set[str] | None:
    """Ids of the utterances whose transcripts a stage may use; None: all."""
    directory = inputs.get("labels")
    if directory is None:
        return None
    path = directory / LABELS
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return {row["id"] for row in csv.DictReader(stream, delimiter="\t")}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise LightasrError(f"{path}: not readable: {error!r}") from error


def lot(name: str) -> bytes:
    """What decides an order that is by chance, but the same everywhere."""
    return hashlib.sha256(name.encode()).digest()


def _utterances(features: Path) -> Iterator[Labelled]:
    for where, cut in read_cuts(features):
        try:
            (supervision,) = cut["supervisions"]
            yield Labelled(cut["id"], supervision["speaker"], cut["duration"])
        except (ValueError, KeyError, TypeError) as error:
            raise LightasrError(
                f"{where}: expected a cut with one supervision that has a speaker ({error!r})"
            ) from None
