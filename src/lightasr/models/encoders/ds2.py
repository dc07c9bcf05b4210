"""Deep Speech 2's encoder: a stack of recurrent layers of any unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self, cast

import torch
from pydantic import model_validator
from torch import Tensor, nn

from lightasr.errors import LightasrError
from lightasr.models.layers import Layered
from lightasr.models.recurrent.directions import Streaming
from lightasr.models.recurrent.fused import FusedLayer
from lightasr.models.recurrent.parallel import STREAMS, ParallelLSTMLayer
from lightasr.models.recurrent.quaternion import QuaternionLinear
from lightasr.models.recurrent.scanned import ScannedLayer
from lightasr.models.registry import register
from lightasr.schema import Component, Fraction, Positive


class Config(Component):
    """Recurrent layers with sequence-wise normalisation; the directions share no weight."""

    unit: Literal[
        "rnn",
        "gru",
        "lstm",
        "ligru",
        "sligru",
        "mgu",
        "pmu",
        "img",
        "parallel_lstm",
        "qrnn",
        "qlstm",
        "qligru",
    ] = "lstm"
    """Recurrent unit (`docs/recurrent-units.md` has the equations); `pmu` and `img` are
    reconstructions from descriptions; `q...` are quaternion units."""
    dim: Positive = 192
    """States of one direction; quaternion units need fours, `parallel_lstm` needs threes."""
    activation: Literal["clipped", "relu", "tanh"] = "clipped"
    """Of `rnn` and `qrnn`, others do not read it; `clipped`: min(max(x, 0), 20), as in Deep
    Speech 2."""
    layers: Positive = 3
    """Recurrent layers."""
    bidirectional: bool = True
    """Whether a second set of units reads each utterance from its last frame to its first."""
    combine: Literal["sum", "concat"] = "sum"
    """What joins the two directions; Deep Speech 2 sums."""
    projection: Positive | None = None
    """Width of a linear layer after each recurrent one; null: none."""
    norm: Literal["batch", "layer", "none"] = "batch"
    """Normalisation of what enters a layer: of its input (`lstm`, `gru`, `img`, `qlstm`,
    `parallel_lstm`), or of its input product, as in LiGRU's paper (the others)."""
    dropout: Fraction = 0.1
    """Share of each layer's outputs dropped in training."""
    recurrent_dropout: Fraction = 0.0
    """Share of candidate states dropped in training, the same ones in all frames of a sequence; of
    recurrent weights in units that torch fuses (`lstm`, `gru`, `img`, `qlstm`, `parallel_lstm`)."""
    initial: Literal["zero", "learnt"] = "zero"
    """State before the first frame."""
    recurrent_init: Literal["orthogonal", "xavier"] = "orthogonal"
    """How each gate's recurrent weights start; `train.init: xavier` draws all weights anew."""
    kernel: Literal["auto", "reference", "numba", "triton", "numba-cuda"] = "auto"
    """What runs the units that torch does not fuse; `lstm`, `gru`, `img`, `qlstm` and
    `parallel_lstm` do not read it."""

    def label(self) -> str:
        return self.unit

    @model_validator(mode="after")
    def widths_fit_the_unit(self) -> Self:
        parts = 4 if self.unit.startswith("q") else 3 if self.unit == "parallel_lstm" else 1
        if self.dim % parts:
            raise ValueError(
                f"'dim' ({self.dim}) is not divisible by {parts}, as unit '{self.unit}' needs it"
            )
        if self.unit.startswith("q") and self.projection is not None and self.projection % 4:
            raise ValueError(
                f"'projection' ({self.projection}) is not divisible by 4, as unit '{self.unit}' "
                "needs it"
            )
        return self


LAYERS: dict[str, type[nn.Module]] = {
    **dict.fromkeys(("lstm", "gru", "img", "qlstm"), FusedLayer),
    **dict.fromkeys(("rnn", "ligru", "sligru", "mgu", "pmu", "qrnn", "qligru"), ScannedLayer),
    "parallel_lstm": ParallelLSTMLayer,
}
# A layer's output consists of so many parts of equal width, where order matters to the next layer.
PARTS = {"parallel_lstm": STREAMS, "qrnn": 4, "qlstm": 4, "qligru": 4}


@register("encoder")
class DeepSpeech2(Layered):
    """(B, T, I) -> (B, T, `projection`), or `dim`, or twice that if directions are concatenated."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.concat, self.parts = config.combine == "concat", PARTS.get(config.unit, 1)
        self.streams = not config.bidirectional
        """Whether `stream` works."""
        joined = config.dim * (2 if self.concat and config.bidirectional else 1)
        self.dim = config.projection or joined
        widths = [inputs] + [self.dim] * (config.layers - 1)
        self.layers = nn.ModuleList(LAYERS[config.unit](config, width) for width in widths)
        linear = QuaternionLinear if config.unit.startswith("q") else nn.Linear
        self.projections = nn.ModuleList(
            linear(joined, config.projection) if config.projection else nn.Identity()
            for _ in range(config.layers)
        )
        self.dropout = nn.Dropout(config.dropout)

    @property
    def depth(self) -> int:
        return len(self.layers)

    def states(self, x_btd: Tensor, lengths_b: Tensor) -> Iterator[Tensor]:
        for layer, project in zip(self.layers, self.projections, strict=True):
            yield (x_btd := self.dropout(project(self.joined(layer(x_btd, lengths_b)))))

    def joined(self, states: list[Tensor]) -> Tensor:
        """Both directions' states, part beside part: real beside real, stream beside stream."""
        if not self.concat:
            return torch.stack(states).sum(0)
        parts = [x_bth.view(*x_bth.shape[:2], self.parts, -1) for x_bth in states]
        return torch.cat(parts, dim=-1).flatten(-2)

    def stream(self, x_btd: Tensor, state: list[Any] | None) -> tuple[Tensor, list[Any]]:
        """The next frames (all of them real) of utterances that go on.

        `state` is None at their beginning, then what the call before returned: tensors in tuples,
        a tuple per layer.
        """
        if not self.streams:
            raise LightasrError(
                "model.encoder.bidirectional: an encoder that reads utterances from their end "
                "cannot stream; train it with `bidirectional: false`"
            )
        after = []
        for i, (layer, project) in enumerate(zip(self.layers, self.projections, strict=True)):
            before = None if state is None else state[i]
            states_bth, layer_state = cast(Streaming, layer).stream(x_btd, before)
            x_btd = self.dropout(project(states_bth))
            after.append(layer_state)
        return x_btd, after
