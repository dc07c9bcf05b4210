"""Parts of one TSV that share no speaker, for who has recordings and no parts yet."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightasr.data.labels import lot
from lightasr.data.manifests.tsv import SPLIT, tsv_rows
from lightasr.errors import LightasrError
from lightasr.files import write_atomically

REST, UNUSED = "train", "unused"
NEEDED = ("id", "speaker", "audio")


@dataclass
class Part:
    """What a part got."""

    utterances: int = 0
    speakers: set[str] = field(default_factory=set)


def split_tsv(
    path: Path, out: Path, held_out: Mapping[str, int], utterances: int | None = None
) -> dict[str, Part]:
    """The lines of a TSV with a column `split` more; `held_out` says how many speakers a part gets.

    All other speakers are `train`. Of a held-out one at most so many `utterances` are used, the
    others are `unused`. Who and which is decided by digests of speakers and ids: the same on every
    machine.
    """
    rows = [row for _, row in tsv_rows(path, NEEDED)]
    if not rows:
        raise LightasrError(f"{path}: no utterances in it")
    if SPLIT in rows[0]:
        raise LightasrError(f"{path}: it has a column '{SPLIT}' already")
    part_of = _parts_of_speakers(path, {row["speaker"] for row in rows}, held_out)
    unused = _beyond(rows, part_of, utterances)
    parts: defaultdict[str, Part] = defaultdict(Part)
    written = ["\t".join([*rows[0], SPLIT])]
    for row in rows:
        part = UNUSED if row["id"] in unused else part_of[row["speaker"]]
        parts[part].utterances += 1
        parts[part].speakers.add(row["speaker"])
        row["audio"] = _seen_from(out, path, row["audio"])
        written.append("\t".join([*row.values(), part]))
    write_atomically(out, "\n".join(written) + "\n")
    return dict(parts)


def _parts_of_speakers(
    path: Path, speakers: set[str], held_out: Mapping[str, int]
) -> dict[str, str]:
    asked = sum(held_out.values())
    if asked >= len(speakers):
        raise LightasrError(
            f"{path}: {asked} speakers to hold out of {len(speakers)}: nobody is left to train on"
        )
    drawn = sorted(speakers, key=lot)
    parts = dict.fromkeys(drawn, REST)
    for part, count in held_out.items():
        parts.update(dict.fromkeys(drawn[:count], part))
        drawn = drawn[count:]
    return parts


def _beyond(
    rows: list[dict[str, str]], part_of: Mapping[str, str], utterances: int | None
) -> set[str]:
    """Ids of held-out speakers beyond so many utterances of each."""
    seen: Counter[str] = Counter()
    beyond = set()
    for row in sorted(rows, key=lambda row: lot(row["id"])):
        if utterances is None or part_of[row["speaker"]] == REST:
            continue
        seen[row["speaker"]] += 1
        if seen[row["speaker"]] > utterances:
            beyond.add(row["id"])
    return beyond


def _seen_from(out: Path, path: Path, audio: str) -> str:
    """A relative path counts from the TSV that it stands in."""
    if Path(audio).is_absolute():
        return audio
    return os.path.relpath(path.parent.absolute() / audio, out.parent.absolute())
