"""Finds and opens what n-grams are made from: text and models, plain or gzipped."""

from __future__ import annotations

import gzip
import io
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from lightasr.errors import LightasrError
from lightasr.lm.arpa import GZIP
from lightasr.progress import track

TEXTS = (".txt", ".gz")
LINES_PER_UPDATE = 20_000
COPY_BYTES = 1 << 22
GZIP_LEVEL = 6  # the highest one takes twice as long for a hundredth less


def one_file(given: Path, endings: tuple[str, ...], what: str) -> Path:
    """A file of the user's own, or the one in the directory of a published archive."""
    if not given.is_dir():
        return given
    found = sorted(path for path in given.iterdir() if path.suffix in endings)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        wanted = " or ".join(endings)
        raise LightasrError(f"{given}: expected one file {wanted} {what}, found {names}")
    return found[0]


def read_text(path: Path) -> Iterator[str]:
    """Lines of plain or gzipped text, whatever its name says."""
    number = 0
    try:
        with (
            path.open("rb") as file,
            _unpacked(file) as lines,
            track("lm: text", total=path.stat().st_size) as bar,
        ):
            for number, line in enumerate(lines, start=1):
                yield line.decode().rstrip("\r\n")
                if number % LINES_PER_UPDATE == 0:
                    bar.update(file.tell() - bar.done, lines=number)
    except FileNotFoundError:
        raise LightasrError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise LightasrError(
            f"{path}:{number}: not UTF-8 text ({error.reason} at byte {error.start + 1} of the "
            "line): convert the file, for example with `iconv`"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise LightasrError(f"{path}: not readable: {error}") from error


def _unpacked(file: io.BufferedReader) -> io.BufferedReader:
    return io.BufferedReader(gzip.open(file)) if _is_packed(file) else file


def _is_packed(file: io.BufferedReader) -> bool:
    return file.peek(2)[:2] == GZIP


def pack(arpa: Path, out: Path) -> None:
    """The model, gzipped; the same bytes for the same model."""
    with arpa.open("rb") as file, out.open("wb") as packed:
        if _is_packed(file):
            shutil.copyfileobj(file, packed, COPY_BYTES)
            return
        size = arpa.stat().st_size
        with (
            track("lm: compress", total=size) as bar,
            gzip.GzipFile("", "wb", GZIP_LEVEL, packed, mtime=0) as stream,
        ):
            while block := file.read(COPY_BYTES):
                stream.write(block)
                bar.update(len(block))


def unpack(path: Path, scratch: Path) -> Path:
    """A file without compression, which the KenLM of the set-up does not read."""
    with path.open("rb") as file:
        if not _is_packed(file):
            return path
        plain = scratch / "plain.arpa"
        with gzip.open(file) as unpacked, plain.open("wb") as out:
            shutil.copyfileobj(unpacked, out, COPY_BYTES)
    return plain
