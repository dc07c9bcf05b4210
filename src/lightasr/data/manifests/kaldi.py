"""Kaldi data directories: wav.scp, text, utt2spk and perhaps segments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lightasr.data.manifests.entries import Entry, Gathered, channel_of, read_text, seconds_of
from lightasr.errors import LightasrError

QUOTING = re.compile(r"[\"'\\]")
SHELL = re.compile(r"[|&;<>$`]")
LAST = re.compile(r"-1(\.0*)?")
ARCHIVE_OFFSET = re.compile(r".*:[0-9]+")


@dataclass(frozen=True)
class Decoder:
    """A command, and what it may be given and still write the audio of one file as it is."""

    flags: str = ""
    """Pattern of options without a value."""
    values: dict[str, str] = field(default_factory=dict)
    """Pattern of the value of each option that has one."""
    last: tuple[str, ...] = ()
    """What stands behind the file."""


DECODERS = {
    "cat": Decoder(),
    "flac": Decoder("-[cdsF]+|--(stdout|decode|silent|totally-silent)"),
    "sph2pipe": Decoder("-p", {"-f": "wav|rif", "-c": "[12]"}),
    "sox": Decoder(  # its -c 1 is the mean of the channels
        "-[qsw]|-V[0-9]?", {"-t": "[a-z]+", "-b": "[0-9]+", "-e": "[a-z-]+", "-c": "1"}, ("-",)
    ),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of one of the files, without its key."""

    rest: str
    where: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where an utterance lies."""

    id: str
    where: str
    audio: Path
    channel: int | None
    start: float = 0.0
    seconds: float | None = None


class Table:
    """A file of `key rest` lines; where a key is there twice, the first line counts."""

    def __init__(self, path: Path, needed: bool = True) -> None:
        self.path = path
        self.lines: dict[str, Line] = {}
        self.doubled: list[tuple[str, Line]] = []
        if not path.is_file():
            if not needed:
                return
            raise LightasrError(
                f"{path}: no such file; a Kaldi data directory has wav.scp, text and utt2spk"
            )
        for number, text in enumerate(read_text(path).split("\n"), start=1):
            if not text.strip():
                continue
            key, *rest = text.split(maxsplit=1)
            line = Line("".join(rest).rstrip(), f"{path}:{number}")
            if key in self.lines:
                self.doubled.append((key, line))
            else:
                self.lines[key] = line

    def rest(self, key: str) -> str:
        """What stands behind a key; nothing where there is no such key."""
        return self.lines[key].rest if key in self.lines else ""


def read_kaldi(folder: Path, split: str | None, gathered: Gathered) -> None:
    """The segments, or the recordings where there are none, in their file's order."""
    if split is not None:
        raise LightasrError(
            f"{folder}: a Kaldi data directory has no split '{split}': name one directory a part"
        )
    audio = Table(folder / "wav.scp")
    texts = Table(folder / "text", needed=gathered.transcribed)
    speakers = Table(folder / "utt2spk")
    tables = [audio, texts, speakers]
    places = _recordings(audio, gathered)
    if (folder / "segments").exists():
        audio = Table(folder / "segments")
        tables.append(audio)
        places = _segments(audio, {place.id: place for place in places}, gathered)
    for place in places:
        _add(place, texts, speakers, gathered)
    for key, line in texts.lines.items():
        if key not in gathered:
            gathered.reject(key, f"no audio in {audio.path}", line.where)
    for table in tables:
        for key, line in table.doubled:
            told = f"it is there twice, at {table.lines[key].where} too"
            gathered.reject(key, told, line.where)


def _recordings(table: Table, gathered: Gathered) -> Iterator[Place]:
    """The files of wav.scp."""
    for key, line in table.lines.items():
        name, channel = _source(line)
        yield Place(key, line.where, gathered.locate(table.path.parent, name), channel)


def _segments(table: Table, recordings: dict[str, Place], gathered: Gathered) -> Iterator[Place]:
    """Stretches of recordings; a recording without one is rejected."""
    used = set()
    for key, line in table.lines.items():
        name, *times = line.rest.split()
        if len(times) not in (2, 3):
            raise LightasrError(
                f"{line.where}: expected `utterance recording start end`, found '{key} {line.rest}'"
            )
        if name not in recordings:
            gathered.reject(key, f"no recording '{name}' in wav.scp", line.where)
            continue
        used.add(name)
        recording = recordings[name]
        try:
            start, seconds, channel = _times(times)
        except LightasrError as error:
            gathered.reject(key, str(error), line.where)
            continue
        if recording.channel is not None:
            channel = recording.channel
        yield Place(key, line.where, recording.audio, channel, start, seconds)
    for name in (name for name in recordings if name not in used):
        gathered.reject(name, f"no segment of it in {table.path}", recordings[name].where)


def _times(fields: list[str]) -> tuple[float, float | None, int | None]:
    """Start, length and channel; an end of -1 is the recording's."""
    start = seconds_of(fields[0], "start")
    channel = channel_of(fields[2]) if len(fields) > 2 else None
    if LAST.fullmatch(fields[1]):
        return start, None, channel
    end = seconds_of(fields[1], "end")
    if end <= start:
        raise LightasrError(f"it ends at {end:g} s, before it starts at {start:g} s")
    return start, end - start, channel


def _add(place: Place, texts: Table, speakers: Table, gathered: Gathered) -> None:
    """An utterance that has all it needs."""
    for table, what in ((texts, "transcript"), (speakers, "speaker")):
        if place.id not in table.lines and (table is not texts or gathered.transcribed):
            gathered.reject(place.id, f"no {what} in {table.path}", place.where)
            return
    entry = Entry(
        place.id,
        speakers.rest(place.id),
        texts.rest(place.id),
        place.audio,
        place.start,
        place.seconds,
        place.channel,
    )
    gathered.add(entry, place.where)


def _source(line: Line) -> tuple[str, int | None]:
    """The file that a line of wav.scp names, perhaps within a command, and its channel."""
    given = line.rest
    if not given.endswith("|"):
        if given in ("", "-") or ARCHIVE_OFFSET.fullmatch(given):
            raise LightasrError(f"{line.where}: '{given}' is no audio file: write its path")
        return given, None
    found = None if SHELL.search(given[:-1]) else _decoded_file(given[:-1])
    if found is None:
        raise LightasrError(
            f"{line.where}: '{given}': lightasr runs no commands; it reads the file itself behind "
            f"plain decoding by {', '.join(DECODERS)}. Write the path of a WAV, FLAC, OGG or MP3 "
            "file, of any rate, in place of the command; convert others first"
        )
    return found


def _decoded_file(command: str) -> tuple[str, int | None] | None:
    """The file, and the channel of it, that a known command writes; None for all else."""
    try:
        # shlex takes ten times as long as all else
        program, *words = shlex.split(command) if QUOTING.search(command) else command.split()
    except ValueError:  # no command, or a quote without its other half
        return None
    name = program.rpartition("/")[2]
    decoder = DECODERS.get(name)
    if decoder is None:
        return None
    operands: list[str] = []
    values: dict[str, str] = {}
    coming = iter(words)
    for word in coming:
        if word in decoder.values:
            values[word] = next(coming, "")
            if not re.fullmatch(decoder.values[word], values[word]):
                return None
        elif word == "-" or not word.startswith("-"):
            operands.append(word)
        elif not re.fullmatch(decoder.flags, word):
            return None
    file, *last = operands or ["-"]
    if file == "-" or tuple(last) != decoder.last:
        return None
    return file, int(values["-c"]) - 1 if name == "sph2pipe" and "-c" in values else None
