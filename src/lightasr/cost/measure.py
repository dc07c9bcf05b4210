"""Peak memory and energy of this process's device, and how each was read."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

RAPL = Path("/sys/class/powercap")


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far: the GPU's allocations, or this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_per_unit / 1e6


class Meter:
    """Joules since it was made, where the machine counts them; else None, never a guess.

    The counters are those of the whole GPU or processor package, whoever else uses it.
    """

    def __init__(self, device: torch.device) -> None:
        self.source, self._read = _counter(device)
        self._last = self._read() if self._read else 0.0

    def since_last(self) -> float | None:
        """Joules since the previous call."""
        if self._read is None:
            return None
        now = self._read()
        used, self._last = now - self._last, now
        return used


def _counter(device: torch.device) -> tuple[str | None, Callable[[], float] | None]:
    if device.type == "cuda":
        return _nvml_counter(torch.cuda.current_device())
    packages = sorted(RAPL.glob("intel-rapl:?"))
    try:
        for package in packages:
            (package / "energy_uj").read_text()
    except OSError:
        packages = []  # root alone may read it on most systems
    if not packages:
        return None, None
    return "RAPL package counters", _Rapl(packages).joules


class _Rapl:
    """Sum of processor packages, past the counters' wrap-around."""

    def __init__(self, packages: list[Path]) -> None:
        self.packages = packages
        self.ranges = [int((p / "max_energy_range_uj").read_text()) for p in packages]
        self.last = [self._raw(p) for p in packages]
        self.total = 0

    @staticmethod
    def _raw(package: Path) -> int:
        return int((package / "energy_uj").read_text())

    def joules(self) -> float:
        now = [self._raw(package) for package in self.packages]
        for before, after, size in zip(self.last, now, self.ranges, strict=True):
            self.total += (after - before) % size
        self.last = now
        return self.total / 1e6


def _nvml_counter(index: int) -> tuple[str | None, Callable[[], float] | None]:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None, None
    uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}".encode()
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
        return None, None

    def read() -> float:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
        return None, None
    return "NVML total energy counter", read
