"""Reads an archive in LibriSpeech's layout as a stream; nothing is unpacked, no name is trusted."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lightasr.errors import LightasrError
from lightasr.progress import Bar

READ_BYTES = 1 << 15  # tarfile copies what it has not given out yet: more is slower
AUDIO, TRANSCRIPTS = ".flac", ".trans.txt"

Rejected = list[tuple[str, str]]
"""Ids of utterances, and why they are left out."""


@dataclass(frozen=True)
class Packed:
    """A transcribed recording of an archive, its audio as it lies there."""

    id: str
    speaker: str
    text: str
    audio: bytes


def read_archive(archive: Path, rejected: Rejected, bar: Bar) -> Iterator[Packed]:
    """Utterances chapter by chapter, in the archive's order; `bar` counts its bytes.

    A chapter's transcripts may come before or after its audio; what waits for its other half is
    one chapter, so memory does not grow with the part.
    """
    texts: dict[str, str] = {}
    waiting: dict[str, bytes] = {}
    spoken: set[str] = set()
    written: set[str] = set()
    for name, payload in _members(archive, rejected, bar):
        if name.name.endswith(TRANSCRIPTS):
            for utterance_id, text in _transcripts(payload, rejected):
                if utterance_id in written:
                    rejected.append(
                        (utterance_id, "its transcript is there twice; the first is kept")
                    )
                    continue
                written.add(utterance_id)
                texts[utterance_id] = text
            ready = [utterance_id for utterance_id in waiting if utterance_id in texts]
        else:
            if name.stem in spoken:
                rejected.append((name.stem, "its audio is there twice; the first is kept"))
                continue
            spoken.add(name.stem)
            waiting[name.stem] = payload
            ready = [name.stem] if name.stem in texts else []
        for utterance_id in ready:
            text, audio = texts.pop(utterance_id), waiting.pop(utterance_id)
            if text:
                yield Packed(utterance_id, utterance_id.split("-")[0], text, audio)
            else:
                rejected.append((utterance_id, "empty transcript"))
    rejected += [(utterance_id, "no transcript") for utterance_id in waiting]
    rejected += [(utterance_id, "no audio") for utterance_id in texts]


def _members(archive: Path, rejected: Rejected, bar: Bar) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Audio and transcripts of a tar, read by their own bytes; nothing is written to disk."""
    try:
        with (
            archive.open("rb") as raw,
            tarfile.open(fileobj=raw, mode="r|*", bufsize=READ_BYTES) as tar,
        ):
            for member in tar:
                tar.members.clear()  # type: ignore[attr-defined] # they would fill the memory
                bar.update(raw.tell() - bar.done)
                name = PurePosixPath(member.name)
                if not member.name.endswith((AUDIO, TRANSCRIPTS)):
                    continue
                if fault := _fault(member):
                    rejected.append((name.stem, f"{member.name}: {fault}"))
                    continue
                stream = tar.extractfile(member)
                assert stream is not None  # it is a regular file
                yield name, stream.read()
    except FileNotFoundError:
        raise LightasrError(f"{archive}: no such file") from None
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise LightasrError(
            f"{archive}: damaged archive: {error}; remove its directory to have it fetched again"
        ) from None


def _fault(member: tarfile.TarInfo) -> str | None:
    """Why a member is not read."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        return "its name leads out of the archive"
    if member.issym() or member.islnk():
        return f"a link to {member.linkname}, not a file"
    if not member.isfile():
        return "a device or a directory, not a file"
    return None


def _transcripts(payload: bytes, rejected: Rejected) -> Iterator[tuple[str, str]]:
    """`ID TEXT` lines."""
    for line in payload.splitlines():
        name, _, text = line.strip().partition(b" ")
        if not name:
            continue
        try:
            yield name.decode("ascii"), text.decode("utf-8").strip()
        except UnicodeDecodeError:
            rejected.append((name.decode("ascii", "replace"), "its transcript is not UTF-8 text"))
