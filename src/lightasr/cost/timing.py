"""What layers and models are measured with: a device, its clock, memory for backward."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from lightasr.errors import LightasrError

Measured = dict[str, str | float | int | None]
Device = Literal["cpu", "cuda"]
SAMPLE_SECONDS = 0.02  # shorter calls are repeated: a clock's tick and a switch must not count


def chosen_device(bench: str, on: Device) -> torch.device:
    """Where to compute; an error where there is no such device."""
    if on == "cuda" and not torch.cuda.is_available():
        raise LightasrError(
            f"bench {bench}: no CUDA device is here, so nothing was measured or written; "
            "`--device cpu` measures the processor"
        )
    return torch.device(on)


def described(device: torch.device) -> Measured:
    """What the numbers depend on besides processor and versions."""
    found: Measured = {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        found["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return found


def timed(work: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Seconds of a call."""
    synchronize(device)
    started = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize(device)
    return (time.perf_counter() - started) / calls


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def warmed_up(
    work: Callable[[], object], device: torch.device, warm_up: int, sample_seconds: float
) -> int:
    """How many calls make a sample, after those that compile and settle."""
    took = [timed(work, device) for _ in range(warm_up)]
    return max(1, math.ceil(sample_seconds / min(took)))


def kept_bytes(layer: nn.Module, x: Tensor) -> int:
    """What a forward pass holds until the backward pass: its output and what is saved for it.

    Input, weights and buffers are there anyway.
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that no other comes to lie there
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        keep(layer(x))
    own = (x, *layer.parameters(), *layer.buffers())
    there_anyway = {tensor.untyped_storage().data_ptr() for tensor in own}
    return sum(storage.nbytes() for place, storage in kept.items() if place not in there_anyway)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that work holds of a GPU's memory, above what was held before."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() - before


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
