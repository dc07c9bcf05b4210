"""Manifests as tab-separated text with a header: `id speaker audio text` and more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lightasr.data.manifests.entries import Entry, Gathered, channel_of, read_text, seconds_of
from lightasr.errors import LightasrError
from lightasr.invalid import nearest

TEXT = "text"
REQUIRED = ("id", "speaker", "audio", TEXT)
SPLIT = "split"
OPTIONAL = ("start", "seconds", "channel", SPLIT)


def read_tsv(path: Path, split: str | None, gathered: Gathered) -> None:
    """Every line, or those whose column `split` says this; audio paths count from the file."""
    if path.name.endswith((".jsonl", ".jsonl.gz")) or path.name == "wav.scp":
        raise LightasrError(f"{path}: no TSV: name the directory that it lies in")
    needed = [name for name in REQUIRED if gathered.transcribed or name != TEXT]
    others: dict[str, None] = {}
    for where, row in tsv_rows(path, needed if split is None else [*needed, SPLIT]):
        if split is None or row[SPLIT] == split:
            _add(row, path, where, gathered)
        else:
            others[row[SPLIT]] = None
    if others and not gathered.seen:
        raise LightasrError(
            f"{path}: no line has the split '{split}'; there are: {', '.join(sorted(others))}"
        )


def tsv_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """File and number of each line below the header, and its fields by column, in their order."""
    header, *lines = read_text(path).split("\n")
    columns = _columns(path, header, needed)
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        fields = line.split("\t")
        if len(fields) != len(columns):
            raise LightasrError(
                f"{where}: {len(fields)} fields, the header has {len(columns)}; "
                "a field holds no tab: quotes do not protect it"
            )
        yield where, dict(zip(columns, fields, strict=True))


def _columns(path: Path, header: str, required: Sequence[str]) -> list[str]:
    """The header, which holds what is needed, and that once."""
    if not header.strip():
        raise LightasrError(
            f"{path}: no header in its first line: tab-separated {' '.join(REQUIRED)}"
        )
    columns = header.split("\t")
    if "," in header and len(columns) == 1:
        raise LightasrError(f"{path}: columns are separated by tabs, not commas")
    for needed in required:
        if needed not in columns:
            unused = [column for column in columns if column not in (*REQUIRED, *OPTIONAL)]
            hint = nearest(needed, unused) if unused else ""
            there = ", ".join(map(repr, columns))
            raise LightasrError(
                f"{path}: no column '{needed}' in its first line; there are: {there}{hint}"
            )
    for column in (*REQUIRED, *OPTIONAL):
        if columns.count(column) > 1:
            raise LightasrError(f"{path}: two columns '{column}' in its first line")
    return columns


def _add(row: dict[str, str], path: Path, where: str, gathered: Gathered) -> None:
    """One line; `seconds` without `start` only informs, as the length of a whole file."""
    try:
        start = seconds_of(row["start"], "start") if row.get("start") else None
        seconds = seconds_of(row["seconds"], "seconds") if row.get("seconds") else None
        channel = channel_of(row["channel"]) if row.get("channel") else None
    except LightasrError as error:
        gathered.reject(row["id"], str(error), where)
        return
    if not row["audio"]:
        gathered.reject(row["id"], "no audio", where)
        return
    audio = path.parent / row["audio"]
    text = row.get(TEXT, "").strip()
    segment = (0.0, None) if start is None else (start, seconds)
    gathered.add(Entry(row["id"], row["speaker"], text, audio, *segment, channel), where)
