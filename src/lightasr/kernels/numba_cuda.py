"""Numba CUDA kernels of Light GRUs: one launch per layer and pass, both directions in it.

One block of threads walks all steps of one sequence and direction, so that no two blocks wait for
each other. What bounds it: each block reads the recurrent weights from the L2 cache at every step,
and multiplies without tensor cores, which Numba does not reach; where both run, prefer Triton.

Numba has no bfloat16 arrays from torch: half-precision gates are computed in float32, and results
are kept and given back in the type of the gates.
"""

# mypy: disable-error-code="attr-defined,no-untyped-call"

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

CELLS = frozenset({"ligru", "sligru", "mgu"})


def unavailable(device: torch.device) -> str | None:
    """Why these kernels cannot run on the device; None if they can."""
    if find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install lightasr[numba-cuda]"
    from numba import cuda

    if _simulated():
        return None if device.type == "cpu" else "Numba's CUDA simulator runs on the CPU alone"
    if device.type != "cuda":
        return f"numba-cuda kernels run on CUDA devices, not on {device.type}"
    if not cuda.is_available():
        why = " ".join(str(cuda.cuda_error() or "none is visible").split())
        return f"numba-cuda finds no CUDA device: {why}"
    return None


def forward(
    cell: str,
    gates_tdbg: Tensor,
    weight_dhg: Tensor,
    h0_dbh: Tensor,
    mask_dbh: Tensor | None,
    keep: bool = True,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """States (T, D, B, H), and what `backward` needs of the pass (nothing without `keep`)."""
    from lightasr.kernels import numba_cuda_programs as programs

    dtype, real = gates_tdbg.dtype, _real(gates_tdbg)
    gates_tdbg, weight_dhg, h0_dbh = (
        tensor.to(real).contiguous() for tensor in (gates_tdbg, weight_dhg, h0_dbh)
    )
    mask_dbh = torch.ones_like(h0_dbh) if mask_dbh is None else mask_dbh.to(real).contiguous()
    steps, directions, batch, width = gates_tdbg.shape
    states_tdbh = gates_tdbg.new_empty(steps, directions, batch, width // 2)
    given = (gates_tdbg, weight_dhg, mask_dbh)
    saved: tuple[Tensor, ...]
    if cell == "ligru":
        saved = (torch.empty_like(gates_tdbg),)
        carry_2dbh = torch.stack([h0_dbh, h0_dbh])
        _launch(programs.ligru_forward, states_tdbh, *given, carry_2dbh, *saved)
    elif cell == "sligru":
        saved = (torch.empty_like(gates_tdbg), gates_tdbg.new_empty(steps, directions, batch))
        _launch(programs.sligru_forward, states_tdbh, *given, h0_dbh.clone(), *saved)
        saved = (gates_tdbg, *saved)
    else:
        saved = (torch.empty_like(states_tdbh), torch.empty_like(states_tdbh))
        kept_dbh = torch.empty_like(h0_dbh)
        _launch(programs.mgu_forward, states_tdbh, *given, h0_dbh.clone(), kept_dbh, *saved)
    if not keep:
        return states_tdbh.to(dtype), ()
    return states_tdbh.to(dtype), tuple(
        tensor.to(dtype) if tensor.dim() == 4 else tensor for tensor in saved
    )


def backward(
    cell: str,
    grad_tdbh: Tensor,
    states_tdbh: Tensor,
    weight_dhg: Tensor,
    h0_dbh: Tensor,
    mask_dbh: Tensor | None,
    saved: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the gates, of h U, and of the initial state."""
    from lightasr.kernels import numba_cuda_programs as programs

    dtype, real = states_tdbh.dtype, _real(states_tdbh)
    grad_tdbh, states_tdbh, weight_dgh, first_dbh = (
        tensor.to(real).contiguous()
        for tensor in (grad_tdbh, states_tdbh, weight_dhg.transpose(1, 2), h0_dbh)
    )
    mask_dbh = torch.ones_like(first_dbh) if mask_dbh is None else mask_dbh.to(real).contiguous()
    carry_dbh = torch.zeros_like(first_dbh)
    dgates_tdbg = torch.empty_like(torch.cat([states_tdbh, states_tdbh], dim=-1))
    dv_tdbg = torch.empty_like(dgates_tdbg) if cell == "sligru" else dgates_tdbg
    wanted = (dgates_tdbg, dv_tdbg) if cell == "sligru" else (dgates_tdbg,)
    program = {
        "ligru": programs.ligru_backward,
        "sligru": programs.sligru_backward,
        "mgu": programs.mgu_backward,
    }[cell]
    saved = tuple(tensor.to(real) for tensor in saved)
    given = (grad_tdbh, *saved, weight_dgh, mask_dbh, first_dbh, carry_dbh)
    _launch(program, states_tdbh, *given, *wanted)
    return dgates_tdbg.to(dtype), dv_tdbg.to(dtype), carry_dbh.to(h0_dbh.dtype)


def _simulated() -> bool:
    from numba import config

    return bool(config.ENABLE_CUDASIM)


def _real(tensor: Tensor) -> torch.dtype:
    """Type of all arrays of a kernel."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _launch(program: Any, states_tdbh: Tensor, *tensors: Tensor) -> None:
    """Run a program over sequences and directions, on the stream that torch works on."""
    from numba import cuda

    from lightasr.kernels.numba_cuda_programs import THREADS

    directions, batch, hidden = states_tdbh.shape[1:]
    threads = min(THREADS, max(32, 1 << (hidden - 1).bit_length()))
    arrays = [tensor.detach() for tensor in (states_tdbh, *tensors)]
    if _simulated():
        program[(batch, directions), threads](*(array.numpy() for array in arrays))
        return
    with cuda.gpus[states_tdbh.device.index]:
        stream = cuda.external_stream(torch.cuda.current_stream(states_tdbh.device).cuda_stream)
        views = [cuda.as_cuda_array(array) for array in arrays]
        program[(batch, directions), threads, stream](*views)
