"""Which Snakemakes work in a project, so that one that is refused can say whom to wait for.

Snakemake's own lock names nobody, and it stays when its holder is killed.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

from lightasr.lock import locked, read_holder
from lightasr.progress import say

AT_WORK = Path(".snakemake/at-work")
LOCKS = Path(".snakemake/locks")


def announce() -> None:
    """Be seen at work until this process ends."""
    mine = AT_WORK / f"{socket.gethostname()}-{os.getpid()}"
    mine.mkdir(parents=True, exist_ok=True)
    until_the_end = ExitStack()
    until_the_end.callback(shutil.rmtree, mine)
    until_the_end.enter_context(locked(mine, "snakemake"))
    atexit.register(until_the_end.close)


def holders() -> list[str]:
    """Who is at work."""
    records = sorted(AT_WORK.glob("*/lock"))
    return [holder for path in records if (holder := read_holder(path)) is not None]


def clear_after_killed() -> None:
    """Remove Snakemake's lock where the one who held it is gone, and nobody else is at work."""
    records = list(AT_WORK.glob("*/lock"))
    if not records or holders():
        return
    for path in records:
        shutil.rmtree(path.parent)
    left = list(LOCKS.glob("*.lock"))
    for path in left:
        path.unlink()
    if left:
        say("A Snakemake was killed here; its lock is removed, and what it began goes on.")
