"""Several processes, one model: who this process is, and what it does with the others.

Started by torchrun (RANK, WORLD_SIZE, MASTER_ADDR are set), the processes meet here; started
otherwise, there is one process and every function is a matter of itself alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from lightasr.errors import RetryError


class Team:
    """The processes that train together."""

    def __init__(self, timeout_seconds: float) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.timeout = timedelta(seconds=timeout_seconds)
        self.board: Store | None = None
        if torch.cuda.is_available():
            torch.cuda.set_device(self.local_rank)
        if self.size > 1:
            store, rank, size = next(rendezvous("env://", timeout=self.timeout))
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=self.timeout
            )
            # Where each process notes the step it is in, for when another waits for it in vain.
            self.board = PrefixStore("steps", store)
            self.note_step(0)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def note_step(self, step: int) -> None:
        if self.board is not None:
            me = f"on {socket.gethostname()}, process {os.getpid()}"
            self.board.set(str(self.rank), f"{step} {me}")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Turn the error of a collective into one that names who did not come."""
        try:
            yield
        except (RuntimeError, dist.DistBackendError) as error:
            if self.board is None or not _is_collective(error):
                raise
            raise RetryError(self.who_is_missing(self.board)) from error

    def who_is_missing(self, board: Store) -> str:
        """The processes that are behind this one."""
        noted = {rank: board.get(str(rank)).decode() for rank in range(self.size)}
        steps = {rank: int(text.split()[0]) for rank, text in noted.items()}
        ahead = max(steps.values())
        behind = [rank for rank in noted if steps[rank] < ahead] or [
            rank for rank in noted if rank != self.rank
        ]
        seconds = self.timeout.total_seconds()
        missing = "; ".join(
            f"rank {rank} ({noted[rank].partition(' ')[2]}, last seen at step {steps[rank]})"
            for rank in behind
        )
        return f"rank {self.rank} waited {seconds:g} s at step {ahead} for {missing}"

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes; not for gradients."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def gather(self, mine: Any) -> list[Any]:
        """One object of each process, in the order of ranks, on every process."""
        if self.size == 1:
            return [mine]
        everyones: list[Any] = [None] * self.size
        dist.all_gather_object(everyones, mine)
        return everyones

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _is_collective(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, dist.DistBackendError) or any(
        word in text for word in ("Timed out", "timed out", "Connection closed", "gloo", "NCCL")
    )
