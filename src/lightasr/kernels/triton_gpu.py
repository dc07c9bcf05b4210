"""Triton kernels of Light GRUs: one launch per layer and pass, both directions in it.

One program walks all steps of one direction and up to 16 sequences, so that no two programs ever
wait for each other. What bounds it: every step reads the recurrent weights, held on chip up to
64 KiB (H = 128 in half precision) and streamed from the L2 cache beyond, by each program for
itself. Wide layers with few sequences therefore use few of a GPU's processors; a kernel that
spreads the hidden units over several of them would need a barrier across the device at each step.

The state and all sums are float32 (float64 for float64 gates); gates, weights and what is saved
for the backward pass have the type of the gates. float32 products are exact unless
`torch.backends.cuda.matmul.allow_tf32` is set, as everywhere in torch.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from lightasr.errors import LightasrError

CELLS = frozenset({"ligru", "sligru", "mgu"})

_CAPABILITY = (8, 0)  # least that the tiles were compiled for
_BLOCK_B = 16  # the least rows of a tensor-core product
_HELD_BYTES = 64 * 1024


def unavailable(device: torch.device) -> str | None:
    """Why these kernels cannot run on the device; None if they can."""
    if find_spec("triton") is None:
        return "Triton is not installed; it comes with torch's CUDA builds for Linux"
    import triton

    if triton.knobs.runtime.interpret:
        return None
    if device.type != "cuda":
        return f"Triton kernels run on CUDA devices, not on {device.type}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _CAPABILITY:
        return f"Triton kernels need compute capability {_CAPABILITY}, {device} has {capability}"
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
    import triton

    from lightasr.kernels import triton_programs as programs

    if gates_tdbg.dtype == torch.bfloat16 and triton.knobs.runtime.interpret:
        raise LightasrError(
            "Triton's interpreter multiplies the bits of bfloat16 as integers: "
            "unset TRITON_INTERPRET, or use float32"
        )
    gates_tdbg = gates_tdbg.contiguous()
    steps, directions, batch, width = gates_tdbg.shape
    real = _real(gates_tdbg)
    h0_dbh, mask_dbh = _state_and_mask(h0_dbh, mask_dbh, real)
    states_tdbh = gates_tdbg.new_empty(steps, directions, batch, width // 2)
    given = (gates_tdbg, weight_dhg.to(gates_tdbg.dtype).contiguous(), mask_dbh)
    saved: tuple[Tensor, ...]
    if cell == "ligru":
        saved = (torch.empty_like(gates_tdbg),)
        carry_2dbh = torch.stack([h0_dbh, h0_dbh])
        _launch(programs.ligru_forward, states_tdbh, *given, carry_2dbh, *saved)
        return states_tdbh, saved if keep else ()
    carry_dbh, scratch_dbg = h0_dbh.clone(), gates_tdbg.new_empty(gates_tdbg.shape[1:], dtype=real)
    if cell == "sligru":
        rstd_tdb = gates_tdbg.new_empty(steps, directions, batch, dtype=real)
        saved = (torch.empty_like(gates_tdbg), rstd_tdb)
        _launch(programs.sligru_forward, states_tdbh, *given, carry_dbh, scratch_dbg, *saved)
        return states_tdbh, (gates_tdbg, *saved) if keep else ()
    saved = (torch.empty_like(states_tdbh), torch.empty_like(states_tdbh))
    _launch(programs.mgu_forward, states_tdbh, *given, carry_dbh, scratch_dbg, *saved)
    return states_tdbh, saved if keep else ()


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
    from lightasr.kernels import triton_programs as programs

    states_tdbh = states_tdbh.contiguous()
    real = _real(states_tdbh)
    first_dbh, mask_dbh = _state_and_mask(h0_dbh, mask_dbh, real)
    carry_dbh = torch.zeros_like(first_dbh)
    dgates_tdbg = states_tdbh.new_empty(*states_tdbh.shape[:3], weight_dhg.shape[2])
    dv_tdbg = torch.empty_like(dgates_tdbg) if cell == "sligru" else dgates_tdbg
    wanted = (dgates_tdbg, dv_tdbg) if cell == "sligru" else (dgates_tdbg,)
    program = {
        "ligru": programs.ligru_backward,
        "sligru": programs.sligru_backward,
        "mgu": programs.mgu_backward,
    }[cell]
    weight_dhg = weight_dhg.to(states_tdbh.dtype).contiguous()
    given = (grad_tdbh.contiguous(), *saved, weight_dhg, mask_dbh, first_dbh)
    _launch(program, states_tdbh, *given, carry_dbh, *wanted)
    return dgates_tdbg, dv_tdbg, carry_dbh.to(h0_dbh.dtype)


def _real(tensor: Tensor) -> torch.dtype:
    """Type of the state and of all sums."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _state_and_mask(
    h0_dbh: Tensor, mask_dbh: Tensor | None, real: torch.dtype
) -> tuple[Tensor, Tensor]:
    h0_dbh = h0_dbh.to(real).contiguous()
    mask_dbh = torch.ones_like(h0_dbh) if mask_dbh is None else mask_dbh.to(real).contiguous()
    return h0_dbh, mask_dbh


def _launch(program: Any, states_tdbh: Tensor, *tensors: Tensor) -> None:
    """Run a program over directions and blocks of the batch, with sizes read off the states."""
    steps, directions, batch, hidden = states_tdbh.shape
    sizes = _tiles(hidden, states_tdbh.element_size())
    tf32 = states_tdbh.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    with torch.cuda.device_of(states_tdbh):  # type: ignore[no-untyped-call]
        program[(directions, -(-batch // _BLOCK_B))](
            states_tdbh,
            *tensors,
            T=steps,
            D=directions,
            B=batch,
            H=hidden,
            BLOCK_B=_BLOCK_B,
            PRECISION="tf32" if tf32 else "ieee",
            num_warps=4 if hidden <= 64 else 8,
            num_stages=1,
            **sizes,
        )


def _tiles(hidden: int, item_bytes: int) -> dict[str, int | bool]:
    """Tiles of a product: the whole weights where they can be held, else streamed ones."""
    whole = max(16, 1 << (hidden - 1).bit_length())
    if 2 * whole * whole * item_bytes <= _HELD_BYTES:
        return {"BLOCK_N": whole, "BLOCK_K": whole, "HELD": True}
    columns = 128 if item_bytes <= 2 else 64
    return {"BLOCK_N": min(whole, columns), "BLOCK_K": min(whole, 64), "HELD": False}
