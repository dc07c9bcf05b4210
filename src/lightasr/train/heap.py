"""Keeps a training on the processor within the memory that its job has.

Batches have ever new lengths. glibc keeps what their tensors leave behind as holes of its heap, in
time four times the memory of the largest batch. Giving them back costs a fifth of the speed if it
is done all the time, so it is done only where the memory is about to run out.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

STATM = Path("/proc/self/statm")
CONTAINER = Path("/sys/fs/cgroup/memory.max")
SHARE = 0.75


class Heap:
    """Holes are given back to the system when the process holds most of what it may."""

    def __init__(self, allowed_mb: float | None) -> None:
        self.limit_mb = None if allowed_mb is None else SHARE * allowed_mb
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._trim = getattr(libc, "malloc_trim", None)  # glibc's own

    def tidy(self) -> None:
        """Cheap enough for every step: it mostly reads one number."""
        if self._trim and self.limit_mb is not None and resident_mb() > self.limit_mb:
            self._trim(0)


def allowed_mb() -> float | None:
    """What each process of this job may hold, by Slurm or the container; None without a limit."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if whole := os.environ.get("SLURM_MEM_PER_NODE"):
        return float(whole) / processes or None  # 0 means all of the node
    if each := os.environ.get("SLURM_MEM_PER_CPU"):
        return float(each) * int(os.environ.get("SLURM_CPUS_ON_NODE", "1")) / processes
    try:
        return float(CONTAINER.read_text()) / 1e6 / processes
    except (FileNotFoundError, ValueError):  # "max" is no number
        return None


def resident_mb() -> float:
    """Memory that this process holds now, on Linux."""
    pages = int(STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
