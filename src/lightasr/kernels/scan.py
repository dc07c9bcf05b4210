"""The recurrences, differentiable, by whichever kernel suits the device and the shape.

Arrays are time-major with D independent directions: `gates_tdbg` (T, D, B, G) is the normalised
input product of all gates, `weight_dhg` (D, H, G), states (T, D, B, H). Lengths are the caller's
matter: every direction starts at the first step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightasr.errors import LightasrError
from lightasr.kernels import reference
from lightasr.progress import say

KERNELS = {
    "numba": "lightasr.kernels.cpu",
    "triton": "lightasr.kernels.triton_gpu",
    "numba-cuda": "lightasr.kernels.numba_cuda",
}
REFERENCE: dict[str, Callable[..., Tensor]] = {
    "ligru": reference.ligru_scan,
    "sligru": reference.sligru_scan,
    "mgu": reference.mgu_scan,
    "rnn_clipped": partial(reference.rnn_scan, activation="clipped"),
    "rnn_relu": partial(reference.rnn_scan, activation="relu"),
    "rnn_tanh": partial(reference.rnn_scan, activation="tanh"),
}
# Packing the weights costs about as much as so many steps.
LEAST_STEPS = 4


def scan(
    cell: str,
    gates_tdbg: Tensor,
    weight_dhg: Tensor,
    h0_dbh: Tensor,
    mask_dbh: Tensor | None = None,
    kernel: str = "auto",
) -> Tensor:
    """States (T, D, B, H) of a cell; `mask_dbh` drops candidates, the same ones at every step."""
    if cell not in REFERENCE:
        raise LightasrError(f"no recurrence '{cell}'; known: {', '.join(REFERENCE)}")
    module = _chosen(cell, gates_tdbg, kernel)
    if module is None:
        return REFERENCE[cell](gates_tdbg, weight_dhg, h0_dbh, mask_dbh)
    if gates_tdbg.device.type == "cpu":  # its registers have no half precision
        gates_tdbg, h0_dbh = gates_tdbg.to(weight_dhg.dtype), h0_dbh.to(weight_dhg.dtype)
    arguments = (cell, module, gates_tdbg, weight_dhg, h0_dbh, mask_dbh)
    states: Tensor = _Scan.apply(*arguments)  # type: ignore[no-untyped-call]
    return states


def _chosen(cell: str, gates_tdbg: Tensor, kernel: str) -> ModuleType | None:
    """The module to use; None is the reference."""
    device = gates_tdbg.device
    if kernel == "auto":
        name = {"cpu": "numba", "cuda": "triton"}.get(device.type, "reference")
        if device.type == "cpu" and len(gates_tdbg) < LEAST_STEPS:
            return None
    else:
        name = kernel
    if name == "reference":
        return None
    if name not in KERNELS:
        known = ", ".join(["auto", "reference", *KERNELS])
        raise LightasrError(f"no kernel '{name}'; known: {known}")
    return _module(cell, name, device.type, kernel == "auto")


@cache
def _module(cell: str, name: str, device: str, automatic: bool) -> ModuleType | None:
    """A kernel's module, or None where it cannot run; says once which it is and why."""
    module = import_module(KERNELS[name])
    why = module.unavailable(torch.device(device))
    if why is None and cell not in module.CELLS:
        why = f"it has no {cell}"
    if why is not None:
        say(f"kernel {name} for {cell} on {device}: {why}; the reference is used")
        return None
    if automatic:
        say(f"kernel {name} for {cell} on {device}")
    return module


class _Scan(torch.autograd.Function):
    """A kernel's two passes; the gradient of the recurrent weights is one product after them."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: str,
        module: ModuleType,
        gates_tdbg: Tensor,
        weight_dhg: Tensor,
        h0_dbh: Tensor,
        mask_dbh: Tensor | None,
    ) -> Tensor:
        keep = any(ctx.needs_input_grad)
        states, saved = module.forward(cell, gates_tdbg, weight_dhg, h0_dbh, mask_dbh, keep=keep)
        ctx.cell, ctx.module = cell, module
        ctx.save_for_backward(states, weight_dhg, h0_dbh, mask_dbh, *saved)
        result: Tensor = states
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_tdbh: Tensor) -> Any:
        states, weight, h0, mask, *saved = ctx.saved_tensors
        dgates, dv, dh0 = ctx.module.backward(
            ctx.cell, grad_tdbh, states, weight, h0, mask, tuple(saved)
        )
        dweight = (
            weight_gradient(ctx.cell, dv, states, h0, saved) if ctx.needs_input_grad[3] else None
        )
        return None, None, dgates, dweight, dh0, None


def weight_gradient(
    cell: str, dv_tdbg: Tensor, states_tdbh: Tensor, h0_dbh: Tensor, saved: list[Tensor]
) -> Tensor:
    """Of h U: the sum over steps of h[t-1]^T dv[t]."""
    if cell != "mgu":
        return _summed(states_tdbh, h0_dbh, dv_tdbg)
    size = h0_dbh.shape[-1]
    gate = saved[0][..., :size]
    of_gate = _summed(states_tdbh, h0_dbh, dv_tdbg[..., :size])
    of_candidate = _summed(
        states_tdbh[:-1] * gate[1:], h0_dbh * gate[0], dv_tdbg[..., size:], shifted=True
    )
    return torch.cat([of_gate, of_candidate], dim=-1)


def _summed(states_tdbh: Tensor, h0_dbh: Tensor, dv_tdbg: Tensor, shifted: bool = False) -> Tensor:
    """sum_t x[t]^T dv[t], where x is h0 and then the states but the last (if not `shifted` yet)."""
    earlier = states_tdbh if shifted else states_tdbh[:-1]
    first = torch.einsum("dbh,dbg->dhg", h0_dbh, dv_tdbg[0])
    return first + torch.einsum("tdbh,tdbg->dhg", earlier, dv_tdbg[1:])
