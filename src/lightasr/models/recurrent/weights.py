"""The weights of units that run on scans: dense, quaternion, and with a gate per neuron."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightasr.models.recurrent.quaternion import QuaternionLinear, QuaternionMatrices

if TYPE_CHECKING:
    from lightasr.models.encoders.ds2 import Config


def init_recurrent(matrix: Tensor, kind: str) -> None:
    """Draw one gate's square matrix: orthogonal, or normal as Xavier has it."""
    if kind == "orthogonal":
        nn.init.orthogonal_(matrix)
    else:
        nn.init.xavier_normal_(matrix)


class DenseWeights(nn.Module):
    """Full matrices: `input` gives the product of all directions, forward() the recurrent ones."""

    def __init__(
        self, config: Config, inputs: int, gates: int, recurrent_gates: int | None = None
    ) -> None:
        super().__init__()
        directions, self.dim = 1 + config.bidirectional, config.dim
        recurrent = config.dim * (recurrent_gates or gates)
        self.input = nn.Linear(inputs, directions * gates * config.dim, bias=config.norm == "none")
        self.recurrent_dhg = nn.Parameter(torch.empty(directions, config.dim, recurrent))
        for matrix in self.matrices():
            init_recurrent(matrix, config.recurrent_init)

    def matrices(self) -> list[Tensor]:
        """Each direction's and gate's own matrix, for those who draw them."""
        directions = self.recurrent_dhg.detach()
        return [m for direction in directions for m in direction.split(self.dim, dim=-1)]

    def forward(self) -> Tensor:
        return self.recurrent_dhg


class ParsimoniousWeights(DenseWeights):
    """Gates [f; c]: f's recurrence is a diagonal, one number per neuron; c's is a full matrix."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__(config, inputs, gates=2, recurrent_gates=1)
        # Vectors, so that neither weight decay nor `train.init` takes them for weight matrices.
        self.diagonals = nn.ParameterList(
            torch.zeros(config.dim) for _ in range(1 + config.bidirectional)
        )

    def forward(self) -> Tensor:
        gate_dhh = torch.diag_embed(torch.stack(list(self.diagonals)))
        return torch.cat([gate_dhh, self.recurrent_dhg], dim=-1)


class QuaternionWeights(nn.Module):
    """Hamilton products in place of matrix products; the scan sees their block matrices."""

    def __init__(self, config: Config, inputs: int, gates: int) -> None:
        super().__init__()
        self.directions = 1 + config.bidirectional
        blocks = self.directions * gates
        self.input = QuaternionLinear(
            inputs, blocks * config.dim, bias=config.norm == "none", blocks=blocks
        )
        self.recurrent = QuaternionMatrices(blocks, config.dim, config.dim, config.recurrent_init)

    def forward(self) -> Tensor:
        blocks_dgoi = self.recurrent().unflatten(0, (self.directions, -1))
        return blocks_dgoi.permute(0, 3, 1, 2).flatten(2)
