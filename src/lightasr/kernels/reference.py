"""The recurrences in plain torch: any dtype, any device, and the oracle of faster kernels."""

from __future__ import annotations

import torch
from torch import Tensor


def ligru_scan(gates_tdbg: Tensor, weight_dhg: Tensor, h0_dbh: Tensor) -> Tensor:
    """Light GRU states of D independent directions: (T, D, B, H).

    gates hold Norm(W x) as [a; z]:  a, z' = gates + h U;  z = sigmoid(z');  h = z h + (1-z) relu(a)
    """
    h_dbh = h0_dbh
    states = []
    for step_dbg in gates_tdbg.unbind(0):
        a_dbh, z_dbh = torch.baddbmm(step_dbg, h_dbh, weight_dhg).chunk(2, dim=-1)
        h_dbh = torch.lerp(a_dbh.relu(), h_dbh, z_dbh.sigmoid())
        states.append(h_dbh)
    return torch.stack(states)
