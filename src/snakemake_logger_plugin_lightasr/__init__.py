"""What `snakemake` shows of this workflow: on a terminal a live line for each running job.

Snakemake finds the module by its name. Elsewhere than on a terminal, and in a dry run, one line
tells that a job is done, and the jobs' own progress lines go by.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text
from snakemake.logging import DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from lightasr.progress import ONLY_LOG, clock
from lightasr.snakemakes import holders

# Remarks of Snakemake that a reader acts on; the rest of what it says of itself is left out.
KEPT_REMARKS = ("Nothing to be done", "Complete log(s)", "Exiting because", "Trying to restart")
# Said of every job that fails before it has made anything.
DROPPED_WARNINGS = ("Cannot restore ",)
SHOWN_JOBS = 12
# The digits that end a run's name: without them a line fits into 80 columns.
KEY = re.compile(r"-[0-9a-f]{10}\b")
LAST_BYTES = 500


@dataclass
class RunningJob:
    """A job between its start and its end."""

    title: str
    log: Path | None
    started: float = field(default_factory=time.monotonic)

    def last_line(self) -> str:
        """The latest progress of the job, as its log has it."""
        try:
            with self.log.open("rb") if self.log else open(os.devnull, "rb") as stream:  # noqa: PTH123
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - LAST_BYTES))
                lines = stream.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else self.title


class LogHandler(LogHandlerBase):
    """Snakemake hands every log record to `emit`, from a thread of its own, one at a time."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.plain = DefaultFormatter(settings.quiet, settings.show_failed_logs)
        self.kept = DefaultFilter(
            settings.quiet,
            settings.debug_dag,
            settings.verbose,
            settings.dryrun,
            settings.printshellcmds,
        )
        self.console = Console(stderr=True, highlight=False, no_color=settings.nocolor or None)
        self.jobs: dict[int, RunningJob] = {}
        self.done = self.total = 0
        self.started = time.monotonic()
        self.live: Live | None = None
        if self.console.is_terminal and not settings.dryrun:
            os.environ[ONLY_LOG] = "1"  # the jobs' lines are shown from their logs
            self.live = Live(
                console=self.console,
                get_renderable=self.picture,
                refresh_per_second=2,
                transient=True,
            )

    def emit(self, record: logging.LogRecord) -> None:
        if self.common_settings.dryrun:
            if self.kept.filter(record) and (text := self.plain.format(record)):
                print(text, file=sys.stdout if self.common_settings.stdout else sys.stderr)
            return
        event = getattr(record, "event", None)
        match event:
            case LogEvent.JOB_INFO:
                self.start(record)
            case LogEvent.JOB_FINISHED:
                self.finish(record)
            case LogEvent.PROGRESS:
                self.done, self.total = record.done, record.total
            case LogEvent.RUN_INFO:
                self.total = record.stats["total"] if hasattr(record, "stats") else 0
                if self.live is not None:
                    self.live.start()
            case LogEvent.ERROR if record.exception == "LockException" and (at_work := holders()):
                self.say(f"Another Snakemake makes these files: {'; '.join(at_work)}. Wait for it.")
            case LogEvent.JOB_ERROR | LogEvent.GROUP_ERROR | LogEvent.ERROR:
                if event == LogEvent.JOB_ERROR:
                    self.jobs.pop(record.jobid, None)
                self.say(self.plain.format(record))
            case _ if self.matters(record):
                self.say(self.plain.format(record))

    def matters(self, record: logging.LogRecord) -> bool:
        text = str(record.msg or "")
        warns = record.levelno >= logging.WARNING and not text.startswith(DROPPED_WARNINGS)
        return warns or text.startswith(KEPT_REMARKS)

    def start(self, record: logging.LogRecord) -> None:
        wildcards = dict(record.wildcards or {})
        title = " ".join([str(record.rule_name), *map(str, wildcards.values())])
        logs = list(record.log or [])
        self.jobs[record.jobid] = RunningJob(title, Path(logs[0]) if logs else None)

    def finish(self, record: logging.LogRecord) -> None:
        job = self.jobs.pop(record.job_id, None)
        self.done += 1
        if job is not None:
            took = clock(time.monotonic() - job.started)
            self.say(f"[{self.done}/{self.total}] {job.title}  {took}")

    def say(self, text: str) -> None:
        self.console.print(Text(text.rstrip("\n")), soft_wrap=True)

    def picture(self) -> Text:
        """A line for the whole, and one for each running job."""
        return Text("\n".join(self.lines()), no_wrap=True, overflow="ellipsis")

    def lines(self) -> Iterator[str]:
        jobs = list(self.jobs.values())
        yield f"{self.done} of {self.total} jobs done  {clock(time.monotonic() - self.started)}"
        for job in jobs[:SHOWN_JOBS]:
            yield f"  {KEY.sub('', job.last_line())}"
        if len(jobs) > SHOWN_JOBS:
            yield f"  and {len(jobs) - SHOWN_JOBS} more"

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False
