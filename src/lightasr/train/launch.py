"""Starts the processes of a training on this machine: torchrun, with its exit code made useful."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from lightasr.errors import LightasrError, RetryError
from lightasr.threads import usable_cores


def launched() -> bool:
    """Whether torchrun (this module's, or a cluster's own) has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(processes: int) -> None:
    """Run this very command line in several processes; signals reach all of them."""
    command = [
        *[sys.executable, "-m", "torch.distributed.run", "--standalone"],
        *["--nproc-per-node", str(processes), "-m", "lightasr", *sys.argv[1:]],
    ]
    threads = max(1, usable_cores() // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    stopped: list[int] = []
    with subprocess.Popen(command, env=environment) as team:

        def forward(number: int, frame: object) -> None:
            stopped.append(number)
            team.send_signal(signal.SIGTERM)

        before = {
            number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGUSR1)
        }
        try:
            code = team.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if code and stopped:
        raise RetryError(f"stopped by {signal.Signals(stopped[0]).name}; run again to go on")
    if code:
        raise LightasrError(f"training on {processes} processes failed, see above")
