"""Locks a directory for one process, on one machine or on many that share a file system.

The lock is a file that says who holds it and whose age is its heartbeat. One that was left by a
process that is gone is taken over: at once on the same machine, after a while from another.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightasr.errors import RetryError

HEARTBEAT_SECONDS = 10.0
DEAD_AFTER_SECONDS = 90.0


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder/lock`, or raise RetryError that says who does."""
    path = folder / "lock"
    mine = json.dumps(_myself())
    while not _create(path, mine):
        left = _text(path)
        if holder := read_holder(path):
            raise RetryError(f"{what}: is being made by {holder}")
        _remove_dead(path, left)
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, mine, ended), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        if _text(path) == mine:
            path.unlink()


def read_holder(path: Path) -> str | None:
    """Who holds a lock, in words; None where nobody does, or whoever did is gone."""
    text = _text(path)
    try:
        holder = json.loads(text)
    except ValueError:  # nobody's: a lock appears whole
        return None
    if not _alive(path, holder):
        return None
    job = f", job {holder['job']}" if holder["job"] else ""
    return f"process {holder['pid']} on {holder['host']}{job}"


def _myself() -> dict[str, object]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "started": _start_of(pid),
        "job": os.environ.get("SLURM_JOB_ID"),
    }


def _start_of(pid: int) -> str | None:
    """When a process of this machine started; None when there is no such process."""
    try:
        # The name before it, in parentheses, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]  # dead, and only not waited for by its parent


def _create(path: Path, text: str) -> bool:
    """Put the lock there, whole, unless there is one."""
    fresh = path.with_name(f".lock-{socket.gethostname()}-{os.getpid()}")
    fresh.write_text(text)
    try:
        path.hardlink_to(fresh)
    except FileExistsError:
        return False
    finally:
        fresh.unlink()
    return True


def _alive(path: Path, holder: dict[str, object]) -> bool:
    if holder["host"] == socket.gethostname():
        started = _start_of(int(str(holder["pid"])))
        return started is not None and started == holder["started"]
    # Ages by the file server's clock, which need not be this machine's.
    probe = path.with_name(f".clock-{os.getpid()}")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    try:
        return now - path.stat().st_mtime < DEAD_AFTER_SECONDS
    except FileNotFoundError:
        return False


def _remove_dead(path: Path, text: str) -> None:
    """Of several that find a dead lock one removes it, and nobody removes a live one."""
    aside = path.with_name(f".dead-{socket.gethostname()}-{os.getpid()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if _text(aside) != text:  # somebody had taken it over in between: put it back
        path.hardlink_to(aside)
    aside.unlink()


def _beat(path: Path, mine: str, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        if _text(path) == mine:
            os.utime(path)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
