"""Starts the processes of a training on this machine: torchrun, with its exit code made useful."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from lightasr.errors import LightasrError, RetryError
from lightasr.progress import say
from lightasr.threads import usable_cores

FIRST_PORT, PORTS = 20_000, 20_000


def launched() -> bool:
    """Whether torchrun (this module's, or a cluster's own) has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(processes: int, nodes: int = 1, rendezvous: str | None = None) -> None:
    """Run this very command line in several processes; signals reach all of them.

    On several nodes each node runs this; `rendezvous` is the name of one of them, the same on all.
    """
    check_devices(processes)
    command = [sys.executable, "-m", "torch.distributed.run", *meeting(nodes, rendezvous)]
    # After `--` torchrun takes no option of ours for one of its own.
    command += ["--nproc-per-node", str(processes), "-m", "--", "lightasr", *sys.argv[1:]]
    threads = max(1, usable_cores() // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    stopped: list[int] = []
    # A cluster's warning reaches torchrun, too: what is ignored now, it will ignore.
    warned = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with subprocess.Popen(command, env=environment) as team:

        def forward(number: int, frame: object) -> None:
            stopped.append(number)
            team.send_signal(signal.SIGTERM)

        terminated = signal.signal(signal.SIGTERM, forward)
        signal.signal(signal.SIGUSR1, forward)
        try:
            code = team.wait()
        finally:
            signal.signal(signal.SIGTERM, terminated)
            signal.signal(signal.SIGUSR1, warned)
    if code and stopped:
        raise RetryError(f"stopped by {signal.Signals(stopped[0]).name}; run again to go on")
    if code:
        where = f" on each of {nodes} nodes" if nodes > 1 else ""
        raise LightasrError(f"training in {processes} processes{where} failed, see above")


def meeting(nodes: int, rendezvous: str | None) -> list[str]:
    """How torchrun's agents find each other."""
    if nodes == 1:
        return ["--standalone"]
    if rendezvous is None:
        raise LightasrError("--nodes: --rendezvous must name one of the nodes, HOST or HOST:PORT")
    job = os.environ.get("SLURM_JOB_ID", "0")
    if ":" not in rendezvous:  # jobs that share a node must not share a port
        rendezvous += f":{FIRST_PORT + int(job) % PORTS}"
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", rendezvous, "--rdzv-id", job]
    return ["--nnodes", str(nodes), *meet]


def check_devices(processes: int) -> None:
    """What a cluster reserved for this job are as many GPUs as there will be processes."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return
    devices = [name for name in visible.split(",") if name.strip()]
    say(f"train: CUDA_VISIBLE_DEVICES={visible}")
    if len(devices) < processes:
        raise LightasrError(
            f"--devices {processes}: only {len(devices)} reserved for this job "
            f"(CUDA_VISIBLE_DEVICES={visible!r})"
        )
