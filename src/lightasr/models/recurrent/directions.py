"""What all recurrent layers share: untied directions, true lengths, initial states, streaming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from lightasr.models.layers import valid_mask

if TYPE_CHECKING:
    from lightasr.models.encoders.ds2 import Config

State = tuple[Tensor, ...]
"""What a recurrence hands from a chunk to the next: tensors (D, B, H)."""


class Streaming(Protocol):
    """A layer that reads utterances chunk by chunk."""

    def stream(self, x_btd: Tensor, state: Any) -> tuple[Tensor, Any]: ...


def reversed_in_time(x_btd: Tensor, lengths_b: Tensor) -> Tensor:
    """Each utterance from its last valid frame to its first; padding stays where it is."""
    frames = torch.arange(x_btd.shape[1], device=x_btd.device)
    source_bt = torch.where(
        frames < lengths_b[:, None], lengths_b[:, None] - 1 - frames, frames.expand(len(x_btd), -1)
    )
    return x_btd.gather(1, source_bt[:, :, None].expand_as(x_btd))


class RecurrentLayer(nn.Module):
    """(B, T, I) -> the states (B, T, H) of each direction, in the order of time.

    Every direction starts at the utterance's own first or last frame, so frames after its end
    cannot reach its states. A unit says what enters the recurrence (`prepare`) and what the
    recurrence is (`recur`).
    """

    def __init__(self, config: Config, memories: int = 1) -> None:
        super().__init__()
        self.directions, self.memories, self.dim = 1 + config.bidirectional, memories, config.dim
        learnt = config.initial == "learnt"
        # Vectors, so that neither weight decay nor `train.init` takes them for weight matrices.
        self.initial = nn.ParameterList(
            torch.zeros(config.dim) for _ in range(memories * self.directions * learnt)
        )

    def prepare(self, x_btd: Tensor, valid_bt: Tensor) -> list[Tensor]:
        """What enters the recurrence of each direction: (B, T, G)."""
        raise NotImplementedError

    def recur(self, inputs: list[Tensor], state: State) -> tuple[list[Tensor], State]:
        """States (B, T, H) of each direction, and what the next chunk starts from."""
        raise NotImplementedError

    def start(self, x_btd: Tensor) -> State:
        """The state before an utterance's first frame."""
        shape = (self.memories, self.directions, len(x_btd), self.dim)
        if not len(self.initial):
            return tuple(x_btd.new_zeros(shape).unbind(0))
        initial = torch.stack(list(self.initial)).view(self.memories, self.directions, 1, -1)
        return tuple(initial.expand(shape).to(x_btd.dtype).unbind(0))

    def forward(self, x_btd: Tensor, lengths_b: Tensor) -> list[Tensor]:
        inputs = self.prepare(x_btd, valid_mask(lengths_b, x_btd.shape[1]))
        if self.directions == 2:
            inputs[1] = reversed_in_time(inputs[1], lengths_b)
        states, _ = self.recur(inputs, self.start(inputs[0]))
        if self.directions == 2:
            states[1] = reversed_in_time(states[1], lengths_b)
        return states

    def stream(self, x_btd: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The next frames of utterances that go on; `state` is None at their beginning."""
        inputs = self.prepare(x_btd, x_btd.new_ones(x_btd.shape[:2], dtype=torch.bool))
        states, state = self.recur(inputs, self.start(inputs[0]) if state is None else state)
        return states[0], state
