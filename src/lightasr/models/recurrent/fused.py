"""Units that run on torch's fused LSTM and GRU (cuDNN, oneDNN): lstm, gru, qlstm, img."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.models.layers import SequenceNorm
from lightasr.models.recurrent.directions import RecurrentLayer, State
from lightasr.models.recurrent.quaternion import QuaternionMatrices
from lightasr.models.recurrent.weights import init_recurrent

if TYPE_CHECKING:
    from lightasr.models.encoders.ds2 import Config

GATES = {"lstm": 4, "gru": 3}

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
"""What torch's recurrences take: of the input, of the state, and the biases of either."""


class Unit(Protocol):
    """The weights of one direction, gate below gate."""

    def weights(self) -> Weights: ...


class TorchUnit(nn.Module):
    """torch's own LSTM or GRU."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        kind = nn.LSTM if config.unit == "lstm" else nn.GRU
        self.cell = kind(inputs, config.dim, batch_first=True)
        for gate in self.cell.get_parameter("weight_hh_l0").detach().chunk(GATES[config.unit]):
            init_recurrent(gate, config.recurrent_init)

    def weights(self) -> Weights:
        of = self.cell.get_parameter  # the very tensors that cuDNN has side by side in memory
        return of("weight_ih_l0"), of("weight_hh_l0"), of("bias_ih_l0"), of("bias_hh_l0")


class QuaternionLSTM(nn.Module):
    """LSTM with Hamilton products in place of matrix products; activations split."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.input = QuaternionMatrices(4, inputs, config.dim)
        self.recurrent = QuaternionMatrices(4, config.dim, config.dim, config.recurrent_init)
        self.bias = nn.Parameter(torch.zeros(4 * config.dim))

    def weights(self) -> Weights:
        blocks = (self.input().flatten(0, 1), self.recurrent().flatten(0, 1))
        return *blocks, self.bias, torch.zeros_like(self.bias)


class InternalMemoryGate(nn.Module):
    """Reconstruction of Morchid's IMG (2017): one gate on the memory inside and outside.

    z = sigmoid(W_z x + U_z h + b_z);  c = tanh(W x + z * (U h) + b);  h = z h + (1 - z) c

    This is a GRU whose reset gate is its update gate, so torch's GRU runs it, with z twice.
    """

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.input = nn.Linear(inputs, 2 * config.dim)
        self.recurrent_gh = nn.Parameter(torch.empty(2 * config.dim, config.dim))
        for gate in self.recurrent_gh.detach().chunk(2):
            init_recurrent(gate, config.recurrent_init)

    def weights(self) -> Weights:
        bias = self._twice(self.input.bias)
        of_input, of_state = self._twice(self.input.weight), self._twice(self.recurrent_gh)
        return of_input, of_state, bias, torch.zeros_like(bias)

    def _twice(self, blocks_zc: Tensor) -> Tensor:
        """[z; c] -> [z; z; c]."""
        return torch.cat([blocks_zc[: self.dim], blocks_zc])


UNITS = {
    "lstm": TorchUnit,
    "gru": TorchUnit,
    "qlstm": QuaternionLSTM,
    "img": InternalMemoryGate,
}
LSTMS = frozenset({"lstm", "qlstm"})


def lacks_bf16(device: torch.device) -> bool:
    """Whether an LSTM is asked for 16 bits on a processor that has none: oneDNN fails there."""
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


class FusedLayer(RecurrentLayer):
    """Normalised input; then torch's recurrence, once per direction."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__(config, memories=2 if config.unit in LSTMS else 1)
        self.lstm, self.dropout = config.unit in LSTMS, config.recurrent_dropout
        self.norm = SequenceNorm(config.norm, inputs)
        self.units = nn.ModuleList(
            UNITS[config.unit](config, inputs) for _ in range(self.directions)
        )

    def prepare(self, x_btd: Tensor, valid_bt: Tensor) -> list[Tensor]:
        return [self.norm(x_btd, valid_bt)] * self.directions

    def recur(self, inputs: list[Tensor], state: State) -> tuple[list[Tensor], State]:
        states, last = [], []
        for direction, (unit, x_btd) in enumerate(zip(self.units, inputs, strict=True)):
            start = tuple(memory[direction : direction + 1] for memory in state)
            states_bth, *end = self.run(cast(Unit, unit).weights(), x_btd, start)
            states.append(states_bth)
            last.append(end)
        return states, tuple(torch.cat(memory) for memory in zip(*last, strict=True))

    def run(self, weights: Weights, x_btd: Tensor, start: State) -> tuple[Tensor, ...]:
        """States (B, T, H), then what the recurrence remembers after the last of them."""
        of_input, of_state, *biases = weights
        # No state can be masked inside the fused recurrence, so weights are, as in AWD-LSTM: one
        # mask for all frames of a batch.
        of_state = F.dropout(of_state, self.dropout, self.training)
        flat = (of_input, of_state, *biases)
        start = tuple(memory.contiguous() for memory in start)
        options = (True, 1, 0.0, self.training, False, True)  # one layer, one way, batch first
        if self.lstm and lacks_bf16(x_btd.device):
            with torch.autocast("cpu", enabled=False):
                start, flat = (tuple(each.float() for each in some) for some in (start, flat))
                return torch.lstm(x_btd.float(), start, flat, *options)
        if self.lstm:
            return torch.lstm(x_btd, start, flat, *options)
        return torch.gru(x_btd, start[0], flat, *options)
