"""Compiles the Triton programs for a GPU that is not there; run in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class AbsentGpu:
    """What Triton asks its driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)


class CompiledOnly:
    """A program whose launches compile it, and note the shared memory it takes."""

    def __init__(self, program: Any, shared_bytes: dict[str, int]) -> None:
        self.program, self.shared_bytes = program, shared_bytes

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **kwargs: Any) -> None:
            compiled = self.program.warmup(*args, grid=grid, **kwargs)
            self.shared_bytes[self.program.fn.__name__] = compiled.metadata.shared

        return launch


def shared_bytes(capability: int, cell: str, hidden: int, dtype: torch.dtype) -> dict[str, int]:
    """Shared memory of the cell's programs, compiled as they would be launched."""
    from triton.runtime import driver

    from lightasr.kernels import triton_gpu, triton_programs

    driver.set_active(AbsentGpu(capability))
    taken: dict[str, int] = {}
    for name in (f"{cell}_forward", f"{cell}_backward"):
        program = getattr(triton_programs, name)
        program = program.program if isinstance(program, CompiledOnly) else program
        setattr(triton_programs, name, CompiledOnly(program, taken))
    gates = torch.zeros(2, 2, 3, 2 * hidden, dtype=dtype)
    weight, h0 = torch.zeros(2, hidden, 2 * hidden), torch.zeros(2, 3, hidden)
    states, saved = triton_gpu.forward(cell, gates, weight, h0, None)
    triton_gpu.backward(cell, states, states, weight, h0, None, saved)
    return taken
