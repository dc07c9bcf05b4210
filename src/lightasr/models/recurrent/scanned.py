"""Units that run on our scans: rnn, ligru, sligru, mgu, pmu, qrnn, qligru."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.kernels.scan import scan
from lightasr.models.layers import SequenceNorm
from lightasr.models.recurrent.directions import RecurrentLayer, State
from lightasr.models.recurrent.weights import (
    DenseWeights,
    ParsimoniousWeights,
    QuaternionWeights,
)

if TYPE_CHECKING:
    from lightasr.models.encoders.ds2 import Config

CELLS = {
    "rnn": "rnn",
    "ligru": "ligru",
    "sligru": "sligru",
    "mgu": "mgu",
    "pmu": "mgu",
    "qrnn": "rnn",
    "qligru": "ligru",
}
"""The recurrence of each unit; what tells units of one recurrence apart is their weights."""


class ScannedLayer(RecurrentLayer):
    """One input product for all frames and directions, normalised; then a scan over time."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__(config)
        cell = CELLS[config.unit]
        self.cell = f"rnn_{config.activation}" if cell == "rnn" else cell
        self.kernel, self.dropout = config.kernel, config.recurrent_dropout
        gates = 1 if cell == "rnn" else 2
        self.weights = _weights(config, inputs, gates)
        width = gates * self.dim
        self.norms = nn.ModuleList(SequenceNorm(config.norm, width) for _ in range(self.directions))

    def prepare(self, x_btd: Tensor, valid_bt: Tensor) -> list[Tensor]:
        product = self.weights.input(x_btd).to(next(self.parameters()).dtype)
        parts = product.chunk(self.directions, dim=-1)
        return [norm(part, valid_bt) for norm, part in zip(self.norms, parts, strict=True)]

    def recur(self, inputs: list[Tensor], state: State) -> tuple[list[Tensor], State]:
        gates_tdbg = torch.stack([gates_btg.transpose(0, 1) for gates_btg in inputs], dim=1)
        states_tdbh = self.scan(gates_tdbg, state[0], self.mask(state[0]))
        return list(states_tdbh.permute(1, 2, 0, 3).unbind(0)), (states_tdbh[-1],)

    def mask(self, h0_dbh: Tensor) -> Tensor | None:
        """Recurrent dropout: one mask per sequence, drawn with each batch and kept nowhere."""
        if not self.training or not self.dropout:
            return None
        return F.dropout(torch.ones_like(h0_dbh), self.dropout)

    def scan(self, gates_tdbg: Tensor, h0_dbh: Tensor, mask_dbh: Tensor | None) -> Tensor:
        with torch.autocast(gates_tdbg.device.type, enabled=False):  # the state stays in fp32
            return scan(self.cell, gates_tdbg, self.weights(), h0_dbh, mask_dbh, self.kernel)


def _weights(
    config: Config, inputs: int, gates: int
) -> DenseWeights | ParsimoniousWeights | QuaternionWeights:
    if config.unit == "pmu":
        return ParsimoniousWeights(config, inputs)
    if config.unit in {"qrnn", "qligru"}:
        return QuaternionWeights(config, inputs, gates)
    return DenseWeights(config, inputs, gates)
