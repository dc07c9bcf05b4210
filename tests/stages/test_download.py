"""Downloads: the right file under its name or none, whatever servers, disks and people do."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from lightasr.data.download import Archive, PartFile, Patience, fetch, show
from lightasr.data.mirrors import CHUNK_BYTES
from lightasr.datasets import Datasets
from lightasr.errors import LightasrError, RetryError
from lightasr.jobs import Job
from lightasr.plan import load_plan
from lightasr.progress import Bar
from planning import SOURCE, run_in, write_study
from web import Reply, WebServer, serving

CONTENT = gzip.compress(random.Random(1).randbytes(300_000), mtime=0)
OTHER = gzip.compress(random.Random(2).randbytes(300_000), mtime=0)
FILE = "dev-clean.tar.gz"
HASTY = Patience(connect=1, silence=0.3, attempts=3, connects=2, pause=0.01, longest=0.5)
DROPS = Reply(drop_after=200_000)
HALF = 200_000 - CHUNK_BYTES
"""What a client has for certain after 200 000 bytes: the last chunk may be lost."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """`out` and `work`."""
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    return tmp_path / "out", tmp_path / "work"


def digests(content: bytes) -> dict[str, str]:
    return {
        "md5": hashlib.md5(content).hexdigest(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def wanted(*urls: str, **known: Any) -> Archive:
    """An archive whose digests and size are known, at these mirrors."""
    known = known or {**digests(CONTENT), "bytes": len(CONTENT)}
    return Archive("dev-clean", FILE, urls, **known)


def at(server: WebServer) -> str:
    return f"{server.root}/resources/12/{FILE}"


@contextmanager
def mirrors(*replies: Reply | tuple[Reply, ...]) -> Iterator[list[WebServer]]:
    """A server for each reply, or for each row of them."""
    with ExitStack() as stack:
        rows = [row if isinstance(row, tuple) else (row,) for row in replies]
        yield [stack.enter_context(serving(CONTENT, *row)) for row in rows]


def nothing_in(out: Path) -> bool:
    return list(out.iterdir()) == []


# --- one mirror ---------------------------------------------------------------------------------


def test_a_file_comes_whole_and_its_receipt_says_from_where(places: tuple[Path, Path]) -> None:
    with serving(CONTENT) as server:
        receipt = fetch(wanted(at(server)), *places, HASTY)
    assert (places[0] / FILE).read_bytes() == CONTENT
    assert receipt == {
        "url": at(server),
        "bytes": len(CONTENT),
        **digests(CONTENT),
        "checked": ["bytes", "sha256", "md5"],
    }
    assert [request.range for request in server.requests] == [None]


MENDED = {
    "drops the connection": ("the connection dropped at 200 kB, again in", DROPS, Reply()),
    "drops it again and again": ("dropped", *[Reply(drop_after=70_000)] * 4, Reply()),
    "stalls": ("silent for too long at ", Reply(stall_after=200_000), Reply()),
    "503": ("503 Service Unavailable, again in", Reply(503), Reply()),
    "429, come back in a moment": (
        "429 Too Many Requests, again in",
        Reply(429, {"Retry-After": "0"}),
        Reply(),
    ),
    "ignores Range": ("it cannot go on in the middle, from", DROPS, Reply(ranges=False)),
    "says no length": ("", Reply(says_length=False)),
    "its file changes midway": (
        "its file changed, from the start",
        Reply(content=OTHER, drop_after=200_000),
        Reply(etag='"2"'),
    ),
    "its file changes midway, which only the digest tells": (
        "it came in pieces: once more from the start",
        Reply(content=OTHER, drop_after=200_000),
        Reply(),
    ),
    "its file becomes shorter midway": (
        "has a shorter file than the one begun with",
        Reply(content=CONTENT + OTHER, drop_after=len(CONTENT) + 1000),
        Reply(etag='"2"', conditions=False),
    ),
    "sends other bytes than it was asked for": (
        "sent other bytes than it was asked for",
        DROPS,
        Reply(headers={"Content-Range": f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}"}),
        Reply(),
    ),
    "redirects": ("", Reply(302, {"Location": "/elsewhere"}), Reply()),
    "claims that a gzip file is one only for the transfer": (
        "",
        Reply(headers={"Content-Encoding": "gzip"}),
    ),
}


@pytest.mark.parametrize(("told", "replies"), [(t, r) for t, *r in MENDED.values()], ids=MENDED)
def test_a_fault_that_passes_is_told_and_ends_with_the_right_file(
    told: str,
    replies: list[Reply],
    places: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(CONTENT, *replies) as server:
        fetch(wanted(at(server), **digests(CONTENT)), *places, HASTY)
    assert (places[0] / FILE).read_bytes() == CONTENT
    assert told in capsys.readouterr().err


CUT = {
    "dropped": {},
    "stalled": {"drop_after": None, "stall_after": 200_000},
    "without validators": {"etag": None},
    "weak etag": {"etag": 'W/"1"'},
    "date alone": {"etag": None, "headers": {"Last-Modified": "Sat, 01 Jan 2022 00:00:00 GMT"}},
}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
def test_only_the_rest_is_asked_for(cut: dict[str, Any], places: tuple[Path, Path]) -> None:
    reply = replace(DROPS, **cut)
    whole = replace(reply, drop_after=None, stall_after=None)
    with serving(CONTENT, reply, whole) as server:
        fetch(wanted(at(server)), *places, HASTY)
    first, second = server.requests
    assert first.range is None
    assert HALF <= int(str(second.range).removeprefix("bytes=").removesuffix("-")) <= 200_000
    assert server.sent <= len(CONTENT) + CHUNK_BYTES
    assert second.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("conditions", [True, False], ids=["heeds If-Range", "ignores If-Range"])
def test_a_file_without_a_digest_that_changes_midway_is_not_patched_together(
    conditions: bool, places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    replies = Reply(content=OTHER, drop_after=200_000), Reply(etag='"2"', conditions=conditions)
    with serving(CONTENT, *replies) as server:
        receipt = fetch(wanted(at(server), bytes=len(CONTENT)), *places, HASTY)
    assert (places[0] / FILE).read_bytes() == CONTENT
    assert receipt["sha256"] == digests(CONTENT)["sha256"]
    assert "its file changed" in capsys.readouterr().err
    assert len(server.requests) == (2 if conditions else 3)


def test_progress_resets_the_count_of_failures(places: tuple[Path, Path]) -> None:
    steps = [Reply(drop_after=50_000)] * (HASTY.attempts + 2)
    with serving(CONTENT, *steps, Reply()) as server:
        fetch(wanted(at(server)), *places, HASTY)
    assert len(server.requests) == HASTY.attempts + 3


def test_a_mirror_that_never_gets_further_is_given_up(places: tuple[Path, Path]) -> None:
    """Each attempt brings bytes, but always the same ones."""
    dropping = [Reply(ranges=False, drop_after=size) for size in (100_000, 70_000)]
    with (
        serving(CONTENT, *dropping) as server,
        pytest.raises(RetryError, match="the connection dropped"),
    ):
        fetch(wanted(at(server)), *places, HASTY)
    assert len(server.requests) == HASTY.attempts
    assert nothing_in(places[0])


@pytest.mark.parametrize("given", ["7", "in 7 seconds, as a date"])
def test_a_server_is_left_alone_for_as_long_as_it_asks(
    given: str, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 7))
    busy = Reply(503, {"Retry-After": given if given.isdigit() else date})
    with serving(CONTENT, busy, Reply()) as server:
        fetch(wanted(at(server)), *places, Patience(pause=0.01))
    assert pauses == [pytest.approx(7, abs=1.5)]


def test_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience(pause=1, longest=20)
    pauses = [[patience.after(failures, 0) for failures in range(1, 8)] for _ in range(20)]
    assert all(0.5 <= row[0] <= 1.5 and 8 <= row[4] <= 20 and row[6] == 20 for row in pauses)
    assert len({row[0] for row in pauses}) > 1


# --- several mirrors ----------------------------------------------------------------------------

PASSED_OVER = {
    "404": (Reply(404), 1, "404 Not Found"),
    "403": (Reply(403), 1, "403 Forbidden"),
    "410": (Reply(410), 1, "410 Gone"),
    "500 for good": (Reply(500), HASTY.attempts, "500 Internal Server Error"),
    "busy for an hour": (Reply(503, {"Retry-After": "3600"}), 1, "503 Service Unavailable"),
    "a wrong byte": (Reply(flip=150_000), 1, "sha256 is "),
    "cut short": (Reply(content=CONTENT[:-5]), 1, f"has {len(CONTENT) - 5} bytes, expected"),
    "cut short without a word": (
        Reply(says_length=False, drop_after=100_000),
        1,
        "sent 100000 bytes, expected",
    ),
    "promises more than comes": (
        Reply(headers={"Content-Length": str(len(CONTENT) + 1)}),
        1,
        f"has {len(CONTENT) + 1} bytes, expected",
    ),
    "a page to log in": (Reply(headers={"Content-Type": "text/html"}), 1, "sent a web page"),
    "redirects in a circle": (Reply(302, {"Location": "/again"}), 31, "Exceeded 30 redirects"),
    "silent": (Reply(stall_after=0), HASTY.attempts, "silent for too long"),
}


@pytest.mark.parametrize(("reply", "asked", "reason"), PASSED_OVER.values(), ids=PASSED_OVER)
def test_the_next_mirror_is_asked(
    reply: Reply,
    asked: int,
    reason: str,
    places: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with mirrors(reply, Reply()) as (bad, good):
        receipt = fetch(wanted(at(bad), at(good)), *places, HASTY)
    assert receipt["url"] == at(good)
    assert (places[0] / FILE).read_bytes() == CONTENT
    assert len(bad.requests) == asked
    assert reason in capsys.readouterr().err


def test_a_mirror_without_a_connection_is_left_soon(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/{FILE}"
    with serving(CONTENT) as server:
        assert fetch(wanted(address, at(server)), *places, HASTY)["url"] == at(server)
    told = capsys.readouterr().err
    assert told.count("no connection: Connection refused") == HASTY.connects


def test_what_one_mirror_began_another_goes_on_with(places: tuple[Path, Path]) -> None:
    with mirrors((DROPS, Reply(404)), Reply(etag='"of its own"')) as (first, second):
        fetch(wanted(at(first), at(second)), *places, HASTY)
    assert (places[0] / FILE).read_bytes() == CONTENT
    assert second.sent <= len(CONTENT) - HALF


def test_without_a_digest_every_mirror_begins_anew(places: tuple[Path, Path]) -> None:
    with mirrors((DROPS, Reply(404)), Reply()) as (first, second):
        fetch(wanted(at(first), at(second), bytes=len(CONTENT)), *places, HASTY)
    assert (places[0] / FILE).read_bytes() == CONTENT
    assert second.sent == len(CONTENT)


def test_bytes_of_two_mirrors_that_do_not_fit_are_fetched_once_more(
    places: tuple[Path, Path],
) -> None:
    bad = Reply(flip=1000, drop_after=200_000), Reply(404)
    with mirrors(bad, Reply()) as (first, second):
        fetch(wanted(at(first), at(second)), *places, HASTY)
    assert (places[0] / FILE).read_bytes() == CONTENT
    assert second.requests[-1].range is None


def test_when_all_fail_every_mirror_is_listed_with_its_reason(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    with mirrors(Reply(404), Reply(flip=9)) as (missing, wrong):
        urls = (at(missing), at(wrong), str(tmp_path / FILE))
        with pytest.raises(LightasrError) as told:
            fetch(wanted(*urls), *places, HASTY)
    assert told.value.exit_code == 1, "none of this passes by itself"
    title, *reasons, advice = str(told.value).splitlines()
    assert title == f"{FILE}: could not be fetched:"
    right = digests(CONTENT)["sha256"]
    assert reasons[0] == f"  {urls[0]}: 404 Not Found"
    assert reasons[1].startswith(f"  {urls[1]}: sha256 is ")
    assert f"expected {right}" in reasons[1]
    assert reasons[2] == f"  {urls[2]}: no such file or directory"
    assert "config/config.yaml" in advice
    assert nothing_in(places[0])
    assert nothing_in(places[1]), "wrong bytes are not kept"


def test_when_some_may_pass_a_retry_makes_sense(places: tuple[Path, Path]) -> None:
    with (
        mirrors(Reply(404), Reply(500)) as (missing, busy),
        pytest.raises(RetryError, match="500 Internal Server Error") as told,
    ):
        fetch(wanted(at(missing), at(busy)), *places, HASTY)
    assert told.value.exit_code == 75


def test_passwords_and_signatures_are_not_told(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with mirrors(Reply(403), Reply()) as servers:
        urls = [at(s).replace("://", "://me:secret@") + "?signature=secret" for s in servers]
        receipt = fetch(wanted(*urls), *places, HASTY)
        with pytest.raises(LightasrError) as told:
            fetch(wanted(urls[0].replace("12", "13")), *places, HASTY)
    assert "secret" not in capsys.readouterr().err + json.dumps(receipt) + str(told.value)


# --- files nobody gives a digest of -------------------------------------------------------------


def test_without_a_digest_the_gzip_structure_is_checked_and_that_is_said(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(CONTENT) as server:
        receipt = fetch(wanted(at(server), bytes=None), *places, HASTY)
    assert receipt["checked"] == ["gzip"]
    assert receipt["sha256"] == digests(CONTENT)["sha256"]
    assert f"no digest is known; its sha256: {receipt['sha256']}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [CONTENT[:-5], CONTENT[:-4] + b"1234", b"<html>no such page</html>", b""],
    ids=["cut short", "altered", "a web page", "empty"],
)
def test_without_a_digest_a_damaged_gzip_file_is_refused(
    content: bytes, places: tuple[Path, Path]
) -> None:
    reason = "sent a damaged gzip file" if content else "sent an empty file"
    with serving(content) as server, pytest.raises(LightasrError, match=reason):
        fetch(wanted(at(server), bytes=None), *places, HASTY)
    assert nothing_in(places[0])


# --- folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelt", ["path", "file://"])
def test_a_file_of_a_folder_is_copied(
    spelt: str, places: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "my corpora"
    folder.mkdir()
    (folder / FILE).write_bytes(CONTENT)
    url = str(folder / FILE) if spelt == "path" else (folder / FILE).as_uri()
    assert fetch(wanted(url), *places, HASTY)["bytes"] == len(CONTENT)
    shutil.rmtree(folder)
    assert (places[0] / FILE).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [OTHER, CONTENT[:1000]], ids=["other", "cut short"])
def test_a_wrong_file_of_a_folder_is_passed_over(
    content: bytes, places: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / FILE).write_bytes(content)
    with serving(CONTENT) as server:
        urls = (str(tmp_path / FILE), at(server))
        assert fetch(wanted(*urls), *places, HASTY)["url"] == at(server)
    assert (tmp_path / FILE).read_bytes() == content, "it is not ours to change"


@pytest.mark.parametrize("known", [digests(CONTENT), {"bytes": len(CONTENT)}], ids=["known", "not"])
def test_a_copy_that_was_interrupted_goes_on_unless_the_file_changed(
    known: dict[str, Any], places: tuple[Path, Path], tmp_path: Path
) -> None:
    source = tmp_path / FILE
    source.write_bytes(OTHER)
    with quota(places[1]), pytest.raises(LightasrError, match="make room"):
        fetch(wanted(str(source), **known), *places, HASTY)
    assert PartFile(places[1] / f"{FILE}.part").size > 50_000
    source.write_bytes(CONTENT)
    fetch(wanted(str(source), **known), *places, HASTY)
    assert (places[0] / FILE).read_bytes() == CONTENT


def test_what_was_left_without_a_note_is_not_trusted(places: tuple[Path, Path]) -> None:
    (places[1] / f"{FILE}.part").write_bytes(b"nobody knows what of")
    with serving(CONTENT) as server:
        fetch(wanted(at(server)), *places, HASTY)
    assert (places[0] / FILE).read_bytes() == CONTENT
    assert [request.range for request in server.requests] == [None]


# --- the environment ----------------------------------------------------------------------------


def test_a_proxy_of_the_environment_is_used(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://www.openslr.invalid/resources/12/{FILE}"
    with serving(CONTENT) as proxy:
        monkeypatch.setenv("http_proxy", proxy.root)
        fetch(wanted(url), *places, HASTY)
    assert [request.path for request in proxy.requests] == [url]


def test_a_password_of_netrc_is_used(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving(CONTENT) as server:
        fetch(wanted(at(server)), *places, HASTY)
    assert (
        server.requests[0].headers["Authorization"] == f"Basic {b64encode(b'me:secret').decode()}"
    )


# --- disks --------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=50_000_000))
    refusal = rf"{FILE}: needs 300 kB in .*50 MB are free"
    with serving(CONTENT) as server, pytest.raises(LightasrError, match=refusal):
        fetch(wanted(at(server)), *places, HASTY)
    assert nothing_in(places[1])


@contextmanager
def quota(folder: Path) -> Iterator[None]:
    """No file may grow beyond 100 000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own with room for 100 kB, and more afterwards."""
    mount = ["mount", "-t", "tmpfs", "-o"]
    made = subprocess.run([*mount, "size=100k", "tmpfs", str(folder)], capture_output=True)
    if os.geteuid() or made.returncode:
        pytest.skip("only root can mount a small file system")
    yield
    subprocess.run([*mount, "remount,size=10m", "tmpfs", str(folder)], check=True)


@pytest.mark.parametrize("full", [quota, small_disk])
def test_a_disk_that_fills_midway_keeps_what_came(
    full: Callable[[Path], AbstractContextManager[None]],
    places: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, work = places
    usage = SimpleNamespace(free=10**12)  # others fill it meanwhile
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    try:
        with serving(CONTENT) as server:
            with full(work), pytest.raises(LightasrError, match="make room") as told:
                fetch(wanted(at(server)), *places, HASTY)
            assert isinstance(told.value.__cause__, OSError)
            assert told.value.__cause__.errno in {errno.EFBIG, errno.ENOSPC}
            assert nothing_in(places[0])
            kept = PartFile(work / f"{FILE}.part").size
            assert kept > 80_000
            fetch(wanted(at(server)), *places, HASTY)
        assert (places[0] / FILE).read_bytes() == CONTENT
        assert server.requests[-1].range == f"bytes={kept}-"
    finally:
        if work.is_mount():
            subprocess.run(["umount", "--lazy", str(work)], check=True)


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def scale(project: Path) -> Callable[..., None]:
    """Writes a scale whose corpus lies at the given mirrors."""

    def write(*mirrors: str, **parts: dict[str, Any]) -> None:
        known = {**digests(CONTENT), "bytes": len(CONTENT)}
        names = ("train", "dev", "test")
        tree = {
            "datasets": {
                "web": {
                    "mirrors": list(mirrors),
                    "parts": {name: parts.get(name, known) for name in names},
                }
            },
            "corpus": {
                "name": "web",
                "train": ["train"],
                "dev": "dev",
                "test": ["test"],
                "text": None,
            },
        }
        (project / "config" / "scales" / "web.yaml").write_text(yaml.safe_dump(tree))
        write_study(project, "web")

    return write


CHOICE = ("--scale", "web", "--study", "web")


def jobs(project: Path) -> list[Job]:
    return load_plan(project, "web", ["web"]).of_stage("archive")


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lightasr", "fetch", *arguments, *CHOICE],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_download_goes_on_where_it_was(project: Path, scale: Callable[..., None]) -> None:
    with serving(CONTENT, Reply(stall_after=200_000), Reply()) as server:
        scale(server.root)
        job = jobs(project)[0]
        part = project / "checkpoints" / "archive" / job.id / "train.tar.gz.part"
        with start(project, job.id) as killed:
            wait_for(lambda: part.exists() and part.stat().st_size >= HALF)
            os.kill(killed.pid, signal.SIGKILL)
        kept = part.stat().st_size
        assert not (project / job.dir).exists()
        run = run_in(project, "-m", "lightasr", "fetch", job.id, *CHOICE)
        assert run.returncode == 0, run.stderr
        _, second = server.requests
        assert second.range == f"bytes={kept}-"
        assert second.sent == len(CONTENT) - kept
    assert (project / job.dir / "train.tar.gz").read_bytes() == CONTENT
    assert not part.parent.exists()
    receipt = json.loads((project / job.receipt).read_text())
    assert receipt["url"] == f"{server.root}/train.tar.gz"
    assert receipt["attempts"] == 2


def test_of_two_processes_one_downloads_and_the_other_says_so(
    project: Path, scale: Callable[..., None]
) -> None:
    with serving(CONTENT, Reply(stall_after=200_000), Reply()) as server:
        scale(server.root)
        job = jobs(project)[0]
        with start(project, job.id) as first:
            wait_for(lambda: bool(server.requests))
            second = run_in(project, "-m", "lightasr", "fetch", job.id, *CHOICE)
            assert second.returncode == 75
            assert f"archive {job.id}: is being made by process {first.pid} on" in second.stderr
            assert "Traceback" not in second.stderr
            server.closing.set()  # the stalled connection drops, and the first one goes on
            assert first.wait(30) == 0
    assert len(server.requests) == 2
    assert (project / job.dir / "train.tar.gz").read_bytes() == CONTENT


def test_without_an_id_all_archives_come_in_order_and_one_that_cannot_stops_no_other(
    project: Path, scale: Callable[..., None]
) -> None:
    with serving(CONTENT, Reply(), Reply(404), Reply()) as server:
        scale(server.root)
        run = run_in(project, "-m", "lightasr", "fetch", *CHOICE)
        assert run.returncode == 1
        first, *_, last = run.stderr.splitlines()
        assert first == "3 of 3 archives are missing, 900 kB to download"
        assert "lightasr: dev.tar.gz: could not be fetched:" in run.stderr
        assert last.startswith("lightasr: ")
        assert [job.done(project) for job in jobs(project)] == [True, False, True]
        again = run_in(project, "-m", "lightasr", "fetch", *CHOICE)
        assert again.returncode == 0, again.stderr
        assert again.stderr.startswith("1 of 3 archives are missing, 300 kB to download\n")
    asked = [request.path for request in server.requests]
    assert asked == ["/train.tar.gz", "/dev.tar.gz", "/test.tar.gz", "/dev.tar.gz"]


def test_folders_of_the_config_are_asked_first(
    project: Path, scale: Callable[..., None], tmp_path: Path
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "train.tar.gz").write_bytes(CONTENT)
    (shelf / "dev.tar.gz").write_bytes(OTHER)
    config = project / "config" / "config.yaml"
    config.write_text(f"{config.read_text()}mirrors: [{shelf}]\n")
    with serving(CONTENT) as server:
        scale(server.root)
        run = run_in(project, "-m", "lightasr", "fetch", *CHOICE)
    assert run.returncode == 0, run.stderr
    assert [request.path for request in server.requests] == ["/dev.tar.gz", "/test.tar.gz"]
    receipts = [json.loads((project / job.receipt).read_text()) for job in jobs(project)]
    assert receipts[0]["url"] == str(shelf / "train.tar.gz")


def test_an_archive_that_nobody_has_an_address_of_is_named(
    project: Path, scale: Callable[..., None]
) -> None:
    scale()
    run = run_in(project, "-m", "lightasr", "fetch", jobs(project)[0].id, *CHOICE)
    assert run.returncode == 1
    assert "train.tar.gz: no address: give its dataset `mirrors`, or the part `urls`" in run.stderr


# --- the archives of the project ----------------------------------------------------------------


@pytest.fixture(scope="module")
def datasets() -> Datasets:
    return Datasets.load(Path(__file__).parents[2], "", {}, ())


PUBLISHED = ("librispeech", "mini_librispeech")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_archive_has_digest_size_and_addresses(datasets: Datasets, name: str) -> None:
    for part, known in datasets[name].parts.items():
        assert known.md5, part
        assert known.bytes, part
        urls = datasets.urls(name, part)
        file = datasets.source(name, part).file
        assert len(urls) >= 3
        assert all(
            re.fullmatch(rf"https://[a-z.]+/resources/\d+/{re.escape(file)}", u) for u in urls
        )
    assert "https://www.openslr.org/resources/" in urls[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_digests_are_of_one_archive_each(datasets: Datasets, name: str) -> None:
    parts = datasets[name].parts.values()
    assert len({part.md5 for part in parts}) == len(parts)
    assert len({part.bytes for part in parts}) == len(parts)


def test_the_utterances_of_librispeech_add_up(datasets: Datasets) -> None:
    counts = {name: part.utterances for name, part in datasets["librispeech"].parts.items()}
    spoken = {name: count for name, count in counts.items() if count}
    assert len(spoken) == 7
    assert sum(count for name, count in spoken.items() if name.startswith("train-")) == 281_241
    assert sum(spoken.values()) == 292_367


def test_the_small_corpus_is_scored_on_the_test_parts_of_the_large_one(datasets: Datasets) -> None:
    for part in ("test-clean", "test-other", "lm-text"):
        assert datasets.part("mini_librispeech", part) == datasets.part("librispeech", part)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_line_of_progress_fits_into_80_columns(datasets: Datasets, name: str) -> None:
    for part, known in datasets[name].parts.items():
        bar = Bar(f"fetch {part}", known.bytes, live=False, every=math.inf)
        bar.started -= 12 * 3600
        show(bar, int(known.bytes or 0) // 3, 0, speed="11.2 MB/s")
        assert re.fullmatch(
            rf"fetch {part}   33%  of [\d.]+ [MG]B  speed 11.2 MB/s  \d+:\d\d:\d\d left", bar.text()
        )
        assert len(bar.text()) <= 78, "the workflow's display sets it in by two"
