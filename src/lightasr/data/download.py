"""Fetches a published archive: from the first mirror that works, resumed, kept only if whole.

Bytes go to `<work>/<file>.part`, which survives a kill; a note beside it says what they are of. An
archive with a digest may be continued at another mirror, as the digest tells in the end.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import random
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightasr.data.mirrors import (
    MirrorError,
    NoSuchRange,
    Stream,
    Version,
    local_path,
    open_mirror,
    shown,
)
from lightasr.errors import LightasrError, RetryError
from lightasr.files import write_atomically
from lightasr.progress import Bar, say, track

READ_BYTES = 1 << 20
ROOM_TO_SPARE = 100_000_000
SPEED_OVER_SECONDS = 5.0
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Archive:
    """What is wanted, and where it may be had."""

    name: str
    """What messages call it."""
    file: str
    urls: tuple[str, ...]
    md5: str | None = None
    sha256: str | None = None
    bytes: int | None = None

    @property
    def has_digest(self) -> bool:
        return bool(self.md5 or self.sha256)


@dataclass(frozen=True)
class Patience:
    """How long a mirror may be silent, and how often it is asked again."""

    connect: float = 20.0
    """Seconds for a connection to come about."""
    silence: float = 60.0
    """Seconds without a byte."""
    attempts: int = 6
    """Failures without progress between them, after which the next mirror is asked."""
    connects: int = 2
    """The same of connections that do not come about: a machine may have no way out at all."""
    pause: float = 1.0
    """Seconds before the second attempt; doubled before each further one."""
    longest: float = 120.0
    """The longest pause; a mirror that wants to be left alone for longer is passed over."""

    def after(self, failures: int, wanted: float) -> float:
        """Seconds to wait, not the same for all who were refused together."""
        doubled = self.pause * 2 ** (failures - 1) * random.uniform(0.5, 1.5)
        return max(wanted, min(doubled, self.longest))


PATIENCE = Patience()


class Damaged(MirrorError):
    """What came is not what was wanted."""


@dataclass(frozen=True)
class Note:
    """What the bytes of a part file are of."""

    url: str
    length: int | None
    version: Version
    pieces: int

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, path: Path) -> Note | None:
        try:
            tree = json.loads(path.read_text())
            return cls(**{**tree, "version": Version(**tree["version"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # a power cut, another release
            return None


class Digests:
    """md5 and sha256 of the first `size` bytes of a file, in one pass."""

    def __init__(self) -> None:
        self.size = 0
        self.hashes = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}

    def update(self, chunk: bytes) -> None:
        self.size += len(chunk)
        for digest in self.hashes.values():
            digest.update(chunk)

    def hex(self) -> dict[str, str]:
        return {name: digest.hexdigest() for name, digest in self.hashes.items()}


class PartFile:
    """The bytes that are there so far."""

    def __init__(self, path: Path) -> None:
        self.path, self.note_path = path, path.with_name(f"{path.name}.json")
        self.note = Note.read(self.note_path)
        self.digests = Digests()
        self.furthest = 0

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def complete(self) -> bool:
        return self.note is not None and self.size == self.note.length

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)
        self.note, self.digests = None, Digests()

    def resumes_at(self, url: str, archive: Archive) -> tuple[int, Version | None]:
        """Where to go on, on which condition; a digest tells in the end what a mirror may not."""
        if self.note is None or self.note.length is None:
            return 0, None
        if self.note.url == url and self.note.version.condition:
            return self.size, self.note.version
        return (self.size if archive.has_digest else 0), None

    def differs(self, url: str, stream: Stream) -> bool:
        """Whether the file of a stream is another than the one that was begun with."""
        if self.note is None:
            return False
        same_length = stream.length in (None, self.note.length)
        same_mirror = self.note.url == url
        return not same_length or (same_mirror and self.note.version.is_other_than(stream.version))

    def begin(self, url: str, stream: Stream) -> None:
        """Note what the next bytes are of, before they come."""
        if stream.start == 0 or self.note is None:
            self.discard()
            note = Note(url, stream.length, stream.version, pieces=1)
        else:
            same = self.note.url == url
            version = self.note.version if same else stream.version
            note = Note(url, self.note.length, version, self.note.pieces + 1)
        note.write(self.note_path)
        self.note = note

    def write(self, chunks: Iterator[bytes], bar: Bar) -> None:
        """Append what comes, unbuffered: what is counted is in the file."""
        size, speed = self.size, Speed()
        with self.path.open("ab", buffering=0) as file:
            for chunk in chunks:
                left = memoryview(chunk)
                while left:
                    left = left[file.write(left) :]
                if size == self.digests.size:
                    self.digests.update(chunk)
                size += len(chunk)
                self.furthest = max(self.furthest, size)
                show(bar, len(chunk), size, speed.after(len(chunk)))

    def end(self) -> None:
        """The mirror did not say how long its file is: it is what came."""
        if self.note is not None:
            self.note = Note(self.note.url, self.size, self.note.version, self.note.pieces)
            self.note.write(self.note_path)

    def digest(self, name: str) -> dict[str, str]:
        """md5 and sha256 of all bytes, read once more where earlier attempts brought some."""
        if self.digests.size != self.size:
            self.digests = Digests()
            with track(f"check {name}", total=self.size) as bar, self.path.open("rb") as file:
                while chunk := file.read(READ_BYTES):
                    self.digests.update(chunk)
                    show(bar, len(chunk), self.digests.size)
        return self.digests.hex()


class Speed:
    """Bytes a second, lately."""

    def __init__(self) -> None:
        self.since, self.bytes, self.shown = time.monotonic(), 0, ""

    def after(self, count: int) -> str:
        """What progress shows: nothing at first, since buffers make the first bytes fast."""
        self.bytes += count
        elapsed = time.monotonic() - self.since
        if elapsed >= (SPEED_OVER_SECONDS if self.shown else 1):
            self.shown = f"{amount(self.bytes / elapsed)}/s"
            self.since, self.bytes = time.monotonic(), 0
        return self.shown


def amount(count: float) -> str:
    """Bytes as a person reads them: `6.39 GB`."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def show(bar: Bar, count: int, so_far: int, speed: str = "") -> None:
    """Move on by bytes; where there is no whole to take a share of, say how many there are."""
    bar.fields["of" if bar.total else "got"] = amount(bar.total or so_far)
    if speed:
        bar.fields["speed"] = speed
    bar.update(count if bar.total else 0)


def fetch(archive: Archive, out: Path, work: Path, patience: Patience = PATIENCE) -> dict[str, Any]:
    """Put the archive into `out`, and say where it came from and what was checked."""
    if not archive.urls:
        raise LightasrError(
            f"{archive.file}: no address: give its dataset `mirrors`, or the part `urls`"
        )
    failed: list[tuple[str, MirrorError]] = []
    with _errors_of_disk(work):
        part = PartFile(work / f"{archive.file}.part")
        for url in archive.urls:
            try:
                found = _fetch_from(url, archive, part, out, patience)
            except MirrorError as error:
                failed.append((url, error))
                say(f"fetch {archive.name}  {error}: {_host(url)}")
                continue
            _put(part, archive, out)
            if not archive.has_digest:
                say(f"fetch {archive.name}  no digest is known; its sha256: {found['sha256']}")
            return found
    raise _refused_everywhere(archive, failed)


def _fetch_from(
    url: str, archive: Archive, part: PartFile, out: Path, patience: Patience, again: bool = True
) -> dict[str, Any]:
    """All of the archive, checked; bytes from several attempts are given a second chance."""
    at_once = part.size == 0
    _complete(url, archive, part, out, patience)
    assert part.note is not None  # a complete part has one
    try:
        checked = _check(archive, part)
    except Damaged as error:
        at_once = at_once and part.note.pieces == 1
        part.discard()
        if at_once or not again:
            raise
        say(f"fetch {archive.name}  {error}; it came in pieces: once more from the start")
        return _fetch_from(url, archive, part, out, patience, again=False)
    return {"url": shown(part.note.url), "bytes": part.size, **checked}


def _complete(url: str, archive: Archive, part: PartFile, out: Path, patience: Patience) -> None:
    """Bring the part file to its full length, however often the connection drops."""
    failures, answered = 0, False
    while not part.complete:
        furthest = part.furthest
        try:
            _go_on(url, archive, part, out, patience)
        except MirrorError as error:
            if isinstance(error, NoSuchRange):
                part.discard()
            answered = answered or error.reached
            failures = failures + 1 if part.furthest == furthest else 1
            pause = patience.after(failures, error.wait)
            limit = patience.attempts if answered else patience.connects
            if not error.passing or failures >= limit or pause > patience.longest:
                raise
            at = f" at {amount(part.size)}" if part.size else ""
            say(f"fetch {archive.name}  {error}{at}, again in {pause:.0f} s: {_host(url)}")
            time.sleep(pause)


def _go_on(url: str, archive: Archive, part: PartFile, out: Path, patience: Patience) -> None:
    """One connection: as many bytes as it gives."""
    start, version = part.resumes_at(url, archive)
    with open_mirror(url, start, version, patience.connect, patience.silence) as stream:
        if archive.bytes is not None and stream.length not in (None, archive.bytes):
            raise MirrorError(f"has {stream.length} bytes, expected {archive.bytes}")
        changed = part.differs(url, stream)
        if stream.start and changed:
            raise NoSuchRange("its file changed meanwhile", passing=True)
        if start and not stream.start:
            why = "its file changed" if changed else "it cannot go on in the middle"
            say(f"fetch {archive.name}  {why}, from the start: {_host(url)}")
        whole = stream.length or archive.bytes
        if whole is not None:
            _find_room(archive, whole - stream.start, part.path.parent)
            if not _same_disk(part.path.parent, out):
                _find_room(archive, whole, out)
        with track(f"fetch {archive.name}", total=whole) as bar:
            part.begin(url, stream)
            bar.start_at(stream.start)
            part.write(stream.chunks, bar)
    if stream.length is None:
        part.end()
    elif part.size != stream.length:
        raise NoSuchRange("its file changed meanwhile", passing=True)


def _check(archive: Archive, part: PartFile) -> dict[str, Any]:
    """The digests of what came, all of them as they must be."""
    if archive.bytes not in (None, part.size):
        raise Damaged(f"sent {part.size} bytes, expected {archive.bytes}")
    if not part.size:
        raise Damaged("sent an empty file")
    found = part.digest(archive.name)
    expected = {"sha256": archive.sha256, "md5": archive.md5}
    known = {kind: digest for kind, digest in expected.items() if digest}
    wrong = [
        f"{kind} is {found[kind]}, expected {digest}"
        for kind, digest in known.items()
        if found[kind] != digest
    ]
    if wrong:
        raise Damaged("; ".join(wrong))
    checked = list(known)
    if not known and archive.file.endswith((".gz", ".tgz")):
        _check_gzip(archive, part.path)
        checked = ["gzip"]
    return {**found, "checked": ["bytes", *checked] if archive.bytes else checked}


def _check_gzip(archive: Archive, path: Path) -> None:
    """Every block of a gzip file, whose own checksums find what is cut short or altered."""
    with (
        path.open("rb") as packed,
        gzip.open(packed) as plain,
        track(f"check {archive.name}", total=path.stat().st_size) as bar,
    ):
        try:
            while plain.read(READ_BYTES):
                show(bar, packed.tell() - int(bar.done), packed.tell())
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise Damaged(f"sent a damaged gzip file: {error}") from error


def _find_room(archive: Archive, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + ROOM_TO_SPARE:
        raise LightasrError(
            f"{archive.file}: needs {amount(needed)} in {folder}, where {amount(free)} are free: "
            "make room, or let a folder above it be a link to a larger disk"
        )


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


@contextmanager
def _errors_of_disk(work: Path) -> Iterator[None]:
    """Errors of the disk, which are no mirror's fault."""
    try:
        yield
    except OSError as error:
        advice = "make room and run it again" if error.errno in NO_ROOM else "run it again"
        raise LightasrError(
            f"{work}: {error.strerror}; what came is kept there: {advice}, and it goes on"
        ) from error


def _put(part: PartFile, archive: Archive, out: Path) -> None:
    """The checked file under its own name; the part file goes with `work`, when all is done."""
    with part.path.open("rb") as file:
        os.fsync(file.fileno())
    if _same_disk(part.path, out):
        (out / archive.file).hardlink_to(part.path)
    else:
        with track(f"move {archive.name}"):
            shutil.copyfile(part.path, out / archive.file)


def _host(url: str) -> str:
    return shown(url) if local_path(url) else shown(url).split("/")[2]


def _refused_everywhere(archive: Archive, failed: list[tuple[str, MirrorError]]) -> LightasrError:
    """One message with every mirror and its reason."""
    passing = any(error.passing for _, error in failed)
    lines = [
        f"{archive.file}: could not be fetched:",
        *(f"  {shown(url)}: {error}" for url, error in failed),
        "  with a copy of it in a folder, name the folder under `mirrors` in config/config.yaml",
    ]
    return (RetryError if passing else LightasrError)("\n".join(lines))
