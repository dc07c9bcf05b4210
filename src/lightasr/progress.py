"""Progress of long work: one live line on a terminal, plain log lines everywhere else."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

# Set where the workflow's own display shows each job's last log line: nothing else may be written.
ONLY_LOG = "LIGHTASR_ONLY_LOG"
LINE_EVERY_SECONDS = 15.0
LOG_EVERY_SECONDS = 1.0
LIVE_EVERY_SECONDS = 0.1


def clock(seconds: float) -> str:
    """Seconds as `4:05` or `1:04:05`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


_logs: list[TextIO] = []


def log_to(path: Path) -> None:
    """Write every line that is said to a file as well.

    The workflow asks for this; as its jobs share one terminal, none of them may redraw a line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _logs.append(path.open("a"))


def say(message: str) -> None:
    """One log line on standard error, whole even when several processes write."""
    terminal = [] if _logs and os.environ.get(ONLY_LOG) else [sys.stderr]
    for stream in (*terminal, *_logs):
        stream.write(f"{message}\n")
        stream.flush()


@dataclass
class Bar:
    """The state of one piece of work; `update` moves it on and shows it when it is time."""

    title: str
    total: float | None
    live: bool
    every: float
    done: float = 0.0
    started: float = field(default_factory=time.monotonic)
    shown: float = 0.0
    first: float | None = None
    fields: dict[str, object] = field(default_factory=dict)

    def start_at(self, done: float) -> None:
        """Count work of an earlier attempt as done, but not in the estimate of the time left."""
        self.done = self.first = done

    def update(self, n: float = 1, *, line: bool = False, **fields: object) -> None:
        """Move on by `n`; `line=True` asks for a log line now (the end of an epoch, say)."""
        self.done += n
        self.fields |= fields
        now = time.monotonic()
        if self.every < math.inf and (line or now - self.shown >= self.every):
            self.shown = now
            self.show(keep=line)

    def remaining(self) -> float | None:
        """Seconds left at the pace of this attempt."""
        fresh = self.done - (self.first or 0)
        if not self.total or fresh <= 0:
            return None
        elapsed = time.monotonic() - self.started
        return elapsed / fresh * max(self.total - self.done, 0)

    def text(self) -> str:
        """The line a person reads."""
        parts = [self.title]
        if self.total:
            parts.append(f"{100 * self.done / self.total:3.0f}%")
        elif self.done:
            parts.append(f"{self.done:g}")
        parts += [f"{name} {_short(value)}" for name, value in self.fields.items()]
        left = self.remaining()
        if left is not None and self.done < (self.total or 0):
            parts.append(f"{clock(left)} left")
        return "  ".join(parts)

    def show(self, keep: bool) -> None:
        if self.live:
            sys.stderr.write(f"\r\x1b[K{self.text()}" + ("\n" if keep else ""))
            sys.stderr.flush()
        else:
            say(self.text())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def track(title: str, total: float | None = None, quiet: bool = False) -> Iterator[Bar]:
    """Show the progress of a piece of work of `total` units (unknown: None)."""
    live = sys.stderr.isatty() and not _logs and not quiet
    if quiet:
        every = math.inf
    elif live:
        every = LIVE_EVERY_SECONDS
    else:
        every = LOG_EVERY_SECONDS if os.environ.get(ONLY_LOG) else LINE_EVERY_SECONDS
    bar = Bar(title, total, live, every)
    try:
        yield bar
    finally:
        if live:
            sys.stderr.write("\r\x1b[K")
    if not quiet:
        say(f"{bar.title}  done in {clock(time.monotonic() - bar.started)}")
