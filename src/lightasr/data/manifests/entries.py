"""An utterance of a manifest, and the checks that it passes whatever the manifest's form."""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightasr.errors import LightasrError

CHANNEL = re.compile(r"[0-9]{1,4}")
BAD_IN_ID = re.compile(r"[\s/\x00-\x1f\x7f-\x9f]")
BAD_IN_SPEAKER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NOT_THERE = {errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP}


@dataclass(frozen=True, slots=True)
class Entry:
    """An utterance: who says what, and where that lies."""

    id: str
    speaker: str
    text: str
    audio: Path
    start: float = 0.0
    """Seconds before it in its file."""
    seconds: float | None = None
    """Its length; None: to the end of the file."""
    channel: int | None = None
    """Channel it is on, from 0; None: the mean of all channels."""


class Gathered:
    """The good utterances of a manifest by id; the others go to `rejected`, with the reason."""

    def __init__(self, rejected: list[tuple[str, str]], transcribed: bool) -> None:
        self.entries: dict[str, Entry] = {}
        self.rejected, self.transcribed = rejected, transcribed
        self._files = Files()
        self._lines: dict[str, str] = {}

    @property
    def seen(self) -> bool:
        """Whether there was any utterance, good or bad."""
        return bool(self._lines)

    def __contains__(self, utterance_id: str) -> bool:
        """Whether there was this utterance, good or bad."""
        return utterance_id in self._lines

    def add(self, entry: Entry, where: str) -> None:
        """Take an utterance in; `where` is its file and line."""
        if reason := self._fault(entry):
            self.reject(entry.id, reason, where)
        else:
            self.entries[entry.id] = entry
            self._lines[entry.id] = where

    def reject(self, utterance_id: str, reason: str, where: str) -> None:
        """Leave an utterance out, and say why."""
        shown = BAD_IN_ID.sub(lambda found: repr(found[0])[1:-1], utterance_id) or "(no id)"
        self.rejected.append((shown, f"{where}: {reason}"))
        self._lines.setdefault(utterance_id, where)

    def locate(self, folder: Path, name: str) -> Path:
        """A relative path counts from the manifest's folder, else from the current one."""
        near = Path(name)
        if name.startswith("/"):
            return near
        path = folder / name
        return path if self._files.hold(path) or not self._files.hold(near) else near

    def _fault(self, entry: Entry) -> str | None:
        if not entry.id:
            return "no id"
        if found := BAD_IN_ID.search(entry.id):
            return f"the id {entry.id!r} has {_called(found[0])}, which no id may"
        if entry.id in self._lines:
            return f"the id is there twice, at {self._lines[entry.id]} too"
        if not entry.speaker:
            return "no speaker"
        if BAD_IN_SPEAKER.search(entry.speaker):
            return f"the speaker {entry.speaker!r} has a control character"
        if self.transcribed and not entry.text:
            return "no text"
        if not self._files.hold(entry.audio):
            return f"no audio file {str(entry.audio)!r}"
        return None


class Files:
    """Which files exist: folders are listed once, as asking for each file is slow on a cluster."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def hold(self, path: Path) -> bool:
        folder, name = os.path.split(path)
        try:
            if folder not in self._names:
                self._names[folder] = frozenset(_files_in(folder))
            # Some file systems know one file by several spellings.
            return name in self._names[folder] or path.is_file()
        except OSError as error:
            if error.errno in NOT_THERE:
                return False
            raise


def _files_in(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder or ".") as listing:
            yield from (entry.name for entry in listing if entry.is_file())
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        return  # a folder that is not there, or may be entered but not listed, or has no name


def _called(character: str) -> str:
    if character == "/":
        return "a slash"
    return "a space" if character.isspace() else "a control character"


def seconds_of(given: str | float, key: str) -> float:
    """A time, or a length if `key` is not `start`."""
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or (value == 0 and key != "start"):
        raise LightasrError(f"{key} {given!r} is no number of seconds")
    return value


def channel_of(given: str | int) -> int:
    """A channel's number, from 0."""
    if not CHANNEL.fullmatch(str(given)):
        raise LightasrError(f"channel {given!r} is no number of a channel: they count from 0")
    return int(given)


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark, its lines ended by LF alone."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise LightasrError(f"{path}: UTF-16 text: save it as UTF-8") from None
        line = content.count(b"\n", 0, error.start) + 1
        raise LightasrError(f"{path}:{line}: not UTF-8 text: {error.reason}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
