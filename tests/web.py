"""A web server on loopback that serves one file, rightly or with a fault for each request."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Reply:
    """How one request is answered; the default is right."""

    status: int = 200
    """Another one is sent without content."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Besides the usual ones, or instead of them."""
    content: bytes | None = None
    """Instead of the server's file."""
    etag: str | None = '"1"'
    ranges: bool = True
    """Whether a Range is heeded."""
    conditions: bool = True
    """Whether If-Range is heeded."""
    says_length: bool = True
    drop_after: int | None = None
    """Bytes after which the connection is closed."""
    stall_after: int | None = None
    """Bytes after which nothing comes any more."""
    flip: int | None = None
    """Place of a byte that is sent wrongly."""


@dataclass
class Request:
    """One request and how much was sent for it."""

    path: str
    headers: Mapping[str, str]
    sent: int = 0

    @property
    def range(self) -> str | None:
        return self.headers.get("Range")


class WebServer(ThreadingHTTPServer):
    """Answers with one reply after the other; the last one stays."""

    def __init__(self, content: bytes, replies: tuple[Reply, ...]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.replies = content, list(replies) or [Reply()]
        self.requests: list[Request] = []
        self.closing, self.turn = threading.Event(), threading.Lock()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def sent(self) -> int:
        return sum(request.sent for request in self.requests)

    def next_reply(self) -> Reply:
        with self.turn:
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self) -> None:
        reply = self.server.next_reply()
        request = Request(self.path, dict(self.headers))
        self.server.requests.append(request)
        content = self.server.content if reply.content is None else reply.content
        if reply.status != 200:
            self.answer(reply.status, {"Content-Length": "0", **reply.headers})
            return
        start = self.start_of_range(reply)
        headers = {"Content-Length": str(len(content) - start), "Accept-Ranges": "bytes"}
        if not reply.says_length:
            headers = {"Connection": "close"}
            self.close_connection = True
        if reply.etag:
            headers["ETag"] = reply.etag
        if start and start >= len(content):
            self.answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, {**headers, **reply.headers})
        self.send_from(start, content, reply, request)

    def start_of_range(self, reply: Reply) -> int:
        condition = self.headers["If-Range"]
        strong = [reply.etag, reply.headers.get("Last-Modified")]
        known = condition is None or (condition in strong and not condition.startswith("W/"))
        changed = reply.conditions and not known
        found = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        return int(found[1]) if found and reply.ranges and not changed else 0

    def answer(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_from(self, start: int, content: bytes, reply: Reply, request: Request) -> None:
        wrong = bytearray(content)
        if reply.flip is not None:
            wrong[reply.flip] ^= 1
        limit = next((n for n in (reply.drop_after, reply.stall_after) if n is not None), None)
        body = bytes(wrong[start:])[:limit]
        try:
            for at in range(0, len(body), 1 << 14):
                self.wfile.write(body[at : at + (1 << 14)])
                request.sent += len(body[at : at + (1 << 14)])
        except OSError:
            self.close_connection = True  # who asked hung up
        if reply.stall_after is not None:
            self.server.closing.wait(60)
        if limit is not None:
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(content: bytes, *replies: Reply) -> Iterator[WebServer]:
    """A server that gives these replies, one a request."""
    with WebServer(content, replies) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
