"""The recurrences in plain torch: any dtype, any device, and the oracle of faster kernels.

Each scan returns the states (T, D, B, H) of D independent directions. `gates_tdbg` holds the
normalised input product of all gates; `mask_dbh` is recurrent dropout, one mask per sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Literal["clipped", "relu", "tanh"]

NORM_EPS = 1e-5
"""What SLi-GRU's layer norm adds to the variance."""
CLIP = 20.0
"""Highest state of Deep Speech 2's clipped ReLU."""


def ligru_scan(
    gates_tdbg: Tensor, weight_dhg: Tensor, h0_dbh: Tensor, mask_dbh: Tensor | None = None
) -> Tensor:
    """Light GRU, gates [a; z].

    a, z' = gates + h U;  z = sigmoid(z');  c = relu(a) * mask;  h = z h + (1 - z) c
    """
    h_dbh = h0_dbh
    states = []
    for step_dbg in gates_tdbg.unbind(0):
        h_dbh = _light(torch.baddbmm(step_dbg, h_dbh, weight_dhg), h_dbh, mask_dbh)
        states.append(h_dbh)
    return torch.stack(states)


def sligru_scan(
    gates_tdbg: Tensor, weight_dhg: Tensor, h0_dbh: Tensor, mask_dbh: Tensor | None = None
) -> Tensor:
    """Stabilised Light GRU: LiGRU with a, z' = gates + LN(h U), LN over both gates together."""
    h_dbh = h0_dbh
    states = []
    for step_dbg in gates_tdbg.unbind(0):
        product_dbg = torch.bmm(h_dbh, weight_dhg)
        normed_dbg = F.layer_norm(product_dbg, product_dbg.shape[-1:], eps=NORM_EPS)
        h_dbh = _light(step_dbg + normed_dbg, h_dbh, mask_dbh)
        states.append(h_dbh)
    return torch.stack(states)


def mgu_scan(
    gates_tdbg: Tensor, weight_dhg: Tensor, h0_dbh: Tensor, mask_dbh: Tensor | None = None
) -> Tensor:
    """Minimal gated unit, gates [f; c], U = [U_f, U_c].

    f = sigmoid(g_f + h U_f);  c = tanh(g_c + (f * h) U_c) * mask;  h = (1 - f) h + f c
    """
    h_dbh = h0_dbh
    weight_f_dhh, weight_c_dhh = weight_dhg.chunk(2, dim=-1)
    states = []
    for step_dbg in gates_tdbg.unbind(0):
        gate_f_dbh, gate_c_dbh = step_dbg.chunk(2, dim=-1)
        f_dbh = torch.baddbmm(gate_f_dbh, h_dbh, weight_f_dhh).sigmoid()
        c_dbh = torch.baddbmm(gate_c_dbh, f_dbh * h_dbh, weight_c_dhh).tanh()
        h_dbh = torch.lerp(h_dbh, _masked(c_dbh, mask_dbh), f_dbh)
        states.append(h_dbh)
    return torch.stack(states)


def rnn_scan(
    gates_tdbh: Tensor,
    weight_dhh: Tensor,
    h0_dbh: Tensor,
    mask_dbh: Tensor | None = None,
    activation: Activation = "clipped",
) -> Tensor:
    """Simple recurrence: h = act(gates + h U) * mask; `clipped` is min(max(x, 0), 20)."""
    act, h_dbh = ACTIVATIONS[activation], h0_dbh
    states = []
    for step_dbh in gates_tdbh.unbind(0):
        h_dbh = _masked(act(torch.baddbmm(step_dbh, h_dbh, weight_dhh)), mask_dbh)
        states.append(h_dbh)
    return torch.stack(states)


def _light(gates_dbg: Tensor, h_dbh: Tensor, mask_dbh: Tensor | None) -> Tensor:
    """The next state of a Light GRU from its gates before their activations."""
    a_dbh, z_dbh = gates_dbg.chunk(2, dim=-1)
    return torch.lerp(_masked(a_dbh.relu(), mask_dbh), h_dbh, z_dbh.sigmoid())


def _masked(x_dbh: Tensor, mask_dbh: Tensor | None) -> Tensor:
    return x_dbh if mask_dbh is None else x_dbh * mask_dbh


def _clipped(x_dbh: Tensor) -> Tensor:
    return x_dbh.clamp(0.0, CLIP)


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "clipped": _clipped,
    "relu": torch.relu,
    "tanh": torch.tanh,
}
