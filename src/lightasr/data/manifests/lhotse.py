"""Directories of lhotse manifests: recordings and supervisions, or cuts, as its recipes write."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lightasr.data.manifests.entries import Entry, Gathered, seconds_of
from lightasr.errors import LightasrError

KINDS = ("recordings", "supervisions", "cuts")
SUFFIXES = (".jsonl", ".jsonl.gz")
ROUNDING = 0.01  # seconds; a supervision this near the length of its recording is all of it


class AudioSource(BaseModel):
    """A file of a recording."""

    type: str
    channels: list[int]
    source: str


class Recording(BaseModel):
    """What lightasr reads of lhotse's `Recording`."""

    id: str
    sources: list[AudioSource]
    duration: float
    transforms: list[Any] | None = None


class Supervision(BaseModel):
    """What lightasr reads of lhotse's `SupervisionSegment`."""

    id: str
    recording_id: str
    start: float
    duration: float
    channel: int | list[int] = 0
    text: str | None = None
    speaker: str | None = None


class Cut(BaseModel):
    """What lightasr reads of lhotse's `MonoCut` and `MultiCut`."""

    id: str
    type: str
    start: float = 0.0
    supervisions: list[Supervision] = []
    recording: Recording | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """A recording: its file and line, its length, its files and the channels that each holds."""

    where: str
    seconds: float
    sources: list[tuple[list[int], Path]]

    def source(self, channel: int | list[int]) -> tuple[Path, int | None]:
        """The file that holds these channels, and which channel of it; None is all of them."""
        wanted = [channel] if isinstance(channel, int) else sorted(channel)
        for channels, path in self.sources:
            if len(wanted) == 1 and wanted[0] in channels:
                return path, channels.index(wanted[0])
            if wanted == sorted(channels):
                return path, None
        raise LightasrError(f"channel {channel} is neither one channel nor all of one file")


def read_lhotse(folder: Path, split: str | None, gathered: Gathered) -> None:
    """The supervisions in their file's order; cuts where recordings or supervisions are missing."""
    files = _chosen(folder, split)
    if "recordings" in files and "supervisions" in files:
        _read_supervisions(files["recordings"], files["supervisions"], gathered)
    elif "cuts" in files:
        _read_cuts(files["cuts"], gathered)
    else:
        ((kind, path),) = files.items()
        other = "supervisions" if kind == "recordings" else "recordings"
        raise LightasrError(f"{path}: no {other} of this name lie beside it")


def _chosen(folder: Path, split: str | None) -> dict[str, Path]:
    """The manifests that belong together, by kind; of several sets, the one `split` names."""
    sets: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
        kind = next((kind for kind in KINDS if kind in stem), None)
        if kind is None or not path.name.endswith(SUFFIXES):
            continue
        before, _, after = stem.rpartition(kind)
        name = "_".join(filter(None, (before.strip("_-."), after.strip("_-."))))
        other = sets.setdefault(name, {}).setdefault(kind, path)
        if other != path:
            raise LightasrError(f"{other}: {path.name} lies beside it: keep one of them")
    if not sets:
        raise LightasrError(
            f"{folder}: holds neither wav.scp (Kaldi) nor recordings and supervisions, or cuts, "
            "as *.jsonl.gz (lhotse)"
        )
    named = [name for name in sets if split is None or f"_{name}".endswith(f"_{split}")]
    if len(named) != 1:
        said = "say which as 'split'"
        if split is not None:
            said = f"'{split}' is the end of {'several names' if named else 'no name'}"
        there = ", ".join(repr(name) for name in sets)
        raise LightasrError(f"{folder}: {said}: there are manifests of {there}")
    return sets[named[0]]


def _read_supervisions(recordings: Path, supervisions: Path, gathered: Gathered) -> None:
    located: dict[str, Located] = {}
    doubled: list[tuple[str, str]] = []
    for recording, where in _items(recordings, Recording):
        if recording.id in located:
            doubled.append((recording.id, where))
        else:
            located[recording.id] = _located(recording, recordings.parent, where, gathered)
    used = set()
    for supervision, where in _items(supervisions, Supervision):
        used.add(supervision.recording_id)
        if supervision.recording_id in located:
            _add(supervision, located[supervision.recording_id], 0.0, where, gathered)
        else:
            told = f"no recording {supervision.recording_id!r} in {recordings}"
            gathered.reject(supervision.id, told, where)
    for name in (name for name in located if name not in used):
        gathered.reject(name, f"no transcript in {supervisions}", located[name].where)
    for name, where in doubled:
        gathered.reject(name, f"it is there twice, at {located[name].where} too", where)


def _read_cuts(path: Path, gathered: Gathered) -> None:
    for cut, where in _items(path, Cut):
        if cut.type not in ("MonoCut", "MultiCut"):
            gathered.reject(cut.id, f"a {cut.type}: lightasr reads plain cuts of recordings", where)
        elif cut.recording is None:
            gathered.reject(cut.id, "the cut has no recording", where)
        elif not cut.supervisions:
            gathered.reject(cut.id, "the cut has no supervision, so no transcript", where)
        else:
            located = _located(cut.recording, path.parent, where, gathered)
            for supervision in cut.supervisions:
                _add(supervision, located, cut.start, where, gathered)


def _located(recording: Recording, folder: Path, where: str, gathered: Gathered) -> Located:
    for source in recording.sources:
        if source.type != "file":
            raise LightasrError(
                f"{where}: the audio of '{recording.id}' is a {source.type}: lightasr reads files; "
                "write it to one with lhotse's `save_audio`"
            )
    if recording.transforms:
        raise LightasrError(
            f"{where}: '{recording.id}' is to be transformed: lightasr reads recordings as they "
            "are; write it to a file with lhotse's `save_audio`"
        )
    sources = [
        (source.channels, gathered.locate(folder, source.source)) for source in recording.sources
    ]
    return Located(where, recording.duration, sources)


def _add(
    supervision: Supervision, located: Located, offset: float, where: str, gathered: Gathered
) -> None:
    """A supervision that begins at `offset` of its recording, or later."""
    try:
        audio, channel = located.source(supervision.channel)
        # Cuts subtract times and add them again.
        start = seconds_of(round(offset + supervision.start, ndigits=6), "start")
        seconds = seconds_of(supervision.duration, "duration")
    except LightasrError as error:
        gathered.reject(supervision.id, str(error), where)
        return
    text, speaker = (supervision.text or "").strip(), supervision.speaker or ""
    # Decoders count the samples of a compressed file differently: all of it is what there is.
    whole = start == 0 and abs(seconds - located.seconds) < ROUNDING
    entry = Entry(supervision.id, speaker, text, audio, start, None if whole else seconds, channel)
    gathered.add(entry, where)


Item = TypeVar("Item", bound=BaseModel)


def _items(path: Path, kind: type[Item]) -> Iterator[tuple[Item, str]]:
    """The objects of a manifest, each with its file and line."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _item(line, kind, f"{path}:{number}"), f"{path}:{number}"
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise LightasrError(f"{path}: damaged gzip file: {error}") from None


def _item(line: bytes, kind: type[Item], where: str) -> Item:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        told = f"{key}: {first['msg']}" if key else first["msg"]
        raise LightasrError(f"{where}: no {kind.__name__.lower()} of lhotse: {told}") from None
