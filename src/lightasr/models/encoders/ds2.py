"""Deep Speech 2's encoder: a stack of bidirectional recurrent layers of any unit."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightasr.kernels.reference import ligru_scan
from lightasr.models.layers import SequenceNorm, valid_mask
from lightasr.models.registry import register
from lightasr.schema import Component, Fraction, Positive


class Config(Component):
    """Recurrent layers with sequence-wise normalisation; the directions share no weight."""

    unit: Literal["lstm", "gru", "ligru"] = "lstm"
    """Recurrent unit."""
    dim: Positive = 192
    """States of one direction."""
    layers: Positive = 3
    """Recurrent layers."""
    bidirectional: bool = True
    """Whether a second set of units reads each utterance from its last frame to its first."""
    combine: Literal["sum", "concat"] = "sum"
    """What joins the two directions; Deep Speech 2 sums."""
    norm: Literal["batch", "layer", "none"] = "batch"
    """Normalisation of what enters a layer (`ligru`: of its input product, as in the paper)."""
    dropout: Fraction = 0.1
    """Share of each layer's outputs dropped in training."""

    def label(self) -> str:
        return self.unit


def reversed_in_time(x_btd: Tensor, lengths_b: Tensor) -> Tensor:
    """Each utterance from its last valid frame to its first; padding stays where it is."""
    frames = torch.arange(x_btd.shape[1], device=x_btd.device)
    source_bt = torch.where(
        frames < lengths_b[:, None], lengths_b[:, None] - 1 - frames, frames.expand(len(x_btd), -1)
    )
    return x_btd.gather(1, source_bt[:, :, None].expand_as(x_btd))


class TorchLayer(nn.Module):
    """torch's own LSTM or GRU, once per direction: no packing, and yet no frame of padding read.

    Frames after an utterance's end cannot reach its states, since each direction starts at the
    utterance's own first or last frame.
    """

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        unit = {"lstm": nn.LSTM, "gru": nn.GRU}[config.unit]
        self.norm = SequenceNorm(config.norm, inputs)
        self.directions = nn.ModuleList(
            unit(inputs, config.dim, batch_first=True) for _ in range(1 + config.bidirectional)
        )

    def forward(self, x_btd: Tensor, lengths_b: Tensor) -> list[Tensor]:
        x_btd = self.norm(x_btd, valid_mask(lengths_b, x_btd.shape[1]))
        states = [self.directions[0](x_btd)[0]]
        if len(self.directions) == 2:
            backward, _ = self.directions[1](reversed_in_time(x_btd, lengths_b))
            states.append(reversed_in_time(backward, lengths_b))
        return states


class LightGRULayer(nn.Module):
    """Light GRU: no reset gate, ReLU candidates, normalised input products."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.directions, self.dim = 1 + config.bidirectional, config.dim
        self.input = nn.Linear(inputs, self.directions * 2 * config.dim, bias=False)
        self.norm = SequenceNorm(config.norm, self.directions * 2 * config.dim)
        self.recurrent_dhg = nn.Parameter(torch.empty(self.directions, config.dim, 2 * config.dim))
        for direction in self.recurrent_dhg.data:
            for gate in direction.chunk(2, dim=-1):
                nn.init.orthogonal_(gate)

    def forward(self, x_btd: Tensor, lengths_b: Tensor) -> list[Tensor]:
        product = self.input(x_btd).to(self.recurrent_dhg.dtype)
        gates = self.norm(product, valid_mask(lengths_b, x_btd.shape[1]))
        per_direction = list(gates.chunk(self.directions, dim=-1))
        if self.directions == 2:
            per_direction[1] = reversed_in_time(per_direction[1], lengths_b)
        gates_tdbg = torch.stack(per_direction).permute(2, 0, 1, 3)
        start = gates.new_zeros(self.directions, len(x_btd), self.dim)
        with torch.autocast(gates.device.type, enabled=False):  # the state stays in fp32
            states_tdbh = ligru_scan(gates_tdbg, self.recurrent_dhg, start)
        states_dbth = states_tdbh.permute(1, 2, 0, 3)
        states = list(states_dbth.unbind(0))
        if self.directions == 2:
            states[1] = reversed_in_time(states[1], lengths_b)
        return states


@register("encoder")
class DeepSpeech2(nn.Module):
    """(B, T, I) -> (B, T, dim), or twice `dim` where directions are concatenated."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.concat = config.combine == "concat"
        self.dim = config.dim * (2 if self.concat and config.bidirectional else 1)
        layer = LightGRULayer if config.unit == "ligru" else TorchLayer
        widths = [inputs] + [self.dim] * (config.layers - 1)
        self.layers = nn.ModuleList(layer(config, width) for width in widths)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_btd: Tensor, lengths_b: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            states = layer(x_btd, lengths_b)
            joined = torch.cat(states, dim=-1) if self.concat else torch.stack(states).sum(0)
            x_btd = self.dropout(joined)
        return x_btd, lengths_b
