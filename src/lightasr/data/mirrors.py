"""Opens an archive at one mirror, a web address or a path, at the byte where it is to go on."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3

CHUNK_BYTES = 1 << 16
# Besides those from 500 on: the server may well answer another time.
PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
CONTENT_RANGE = re.compile(r"bytes (?P<first>\d+)-\d+/(?P<length>\d+|\*)")


class MirrorError(Exception):
    """Why a mirror does not give the archive."""

    def __init__(
        self, reason: str, *, passing: bool = False, reached: bool = True, wait: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.passing = passing
        """Whether it may be different in a moment."""
        self.reached = reached
        """Whether there was a connection at all."""
        self.wait = wait
        """Seconds the server wants to be left alone."""


class NoSuchRange(MirrorError):
    """The mirror's file ends before the byte that was asked for: it is not the one begun with."""


@dataclass(frozen=True)
class Version:
    """What tells one state of a file at its mirror from another."""

    etag: str | None = None
    modified: str | None = None

    @property
    def condition(self) -> str | None:
        """What If-Range takes; a weak etag promises no equal bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def is_other_than(self, later: Version) -> bool:
        """Whether the file changed; an answer need not repeat what it was asked with."""
        pairs = ((self.etag, later.etag), (self.modified, later.modified))
        return any(a and b and a != b for a, b in pairs)


@dataclass(frozen=True)
class Stream:
    """The bytes of a file from `start` on."""

    start: int
    length: int | None
    """Of the whole file, where the mirror says."""
    version: Version
    chunks: Iterator[bytes]


def shown(url: str) -> str:
    """An address without what must not be read in a log: user, password, signature."""
    return re.sub("(?<=://)[^/@]*@", "", url).partition("?")[0] if "://" in url else url


def local_path(url: str) -> Path | None:
    """The file behind a path or a file:// address; None for an address of the web."""
    if "://" not in url:
        return Path(url)
    return Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else None


@contextmanager
def open_mirror(
    url: str, start: int, version: Version | None, connect: float, silence: float
) -> Iterator[Stream]:
    """The file from `start` on, or from its first byte where the mirror cannot do better.

    A web server is asked to begin anew if the file is no longer what `version` says.
    """
    path = local_path(url)
    opened = (
        _open_web(url, start, version, (connect, silence))
        if path is None
        else _open_file(path, start)
    )
    with opened as stream:
        yield stream


@contextmanager
def _open_file(path: Path, start: int) -> Iterator[Stream]:
    try:
        file = path.open("rb")
        state = path.stat()
    except OSError as error:
        raise MirrorError(_told(error)) from error
    with file:
        file.seek(start)
        yield Stream(start, state.st_size, Version(modified=str(state.st_mtime_ns)), _read(file))


def _read(file: BinaryIO) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(CHUNK_BYTES)
        except OSError as error:
            raise MirrorError(_told(error), passing=True) from error
        if not chunk:
            return
        yield chunk


def _told(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


@contextmanager
def _open_web(
    url: str, start: int, version: Version | None, timeout: tuple[float, float]
) -> Iterator[Stream]:
    # Bytes as they lie on the server: a transfer packed once more could not be resumed.
    headers = {"User-Agent": "lightasr", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version is not None and version.condition:
            headers["If-Range"] = version.condition
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            yield _stream(response, start)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _explained(error) from error


def _stream(response: requests.Response, start: int) -> Stream:
    """What a response holds; the error that it is, otherwise."""
    status = response.status_code
    if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        raise _refusal(response)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise MirrorError("sent a web page instead of the file")
    first, length = 0, response.headers.get("Content-Length", "")
    if status == HTTPStatus.PARTIAL_CONTENT:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found["first"]) != start:
            raise NoSuchRange("sent other bytes than it was asked for", passing=True)
        first, length = start, found["length"]
    return Stream(
        first,
        int(length) if length.isdigit() else None,
        Version(response.headers.get("ETag"), response.headers.get("Last-Modified")),
        response.raw.stream(CHUNK_BYTES, decode_content=False),
    )


def _refusal(response: requests.Response) -> MirrorError:
    status = response.status_code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return NoSuchRange("has a shorter file than the one begun with", passing=True)
    return MirrorError(
        f"{status} {response.reason}".strip(),
        passing=status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR,
        wait=_seconds(response.headers.get("Retry-After", "")),
    )


def _seconds(retry_after: str) -> float:
    """Seconds until the time that a server names, in one of two ways; 0 where it names none."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0


def _explained(error: Exception) -> MirrorError:
    """An error of the network in a few words."""
    chain = list(_causes(error))
    last = chain[-1]
    words = str((last.strerror if isinstance(last, OSError) else None) or last)
    for cause in chain:
        match cause:
            case ssl.SSLCertVerificationError():
                return MirrorError(f"its certificate is not trusted ({cause.verify_message})")
            case requests.exceptions.ProxyError():
                return MirrorError(f"the proxy: {words}", passing=True, reached=False)
            case urllib3.exceptions.NewConnectionError():
                return MirrorError(f"no connection: {words}", passing=True, reached=False)
            case urllib3.exceptions.ConnectTimeoutError():
                return MirrorError("no connection: no answer", passing=True, reached=False)
            case urllib3.exceptions.ReadTimeoutError():
                return MirrorError("silent for too long", passing=True)
            case urllib3.exceptions.ProtocolError():
                return MirrorError("the connection dropped", passing=True)
    return MirrorError(words, passing=isinstance(error, requests.ConnectionError))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it came from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
