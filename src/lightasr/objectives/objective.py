"""What self-supervised objectives have in common: what they see, hide, tell and report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lightasr.objectives.masks import hidden_spans
from lightasr.schema import Masked


class Sizes(NamedTuple):
    """Of the model that learns."""

    features: int
    """Numbers in a frame of features."""
    factor: int
    """Frames of features that the front end makes into one."""
    frontend: int
    """Channels after the front end."""
    encoder: int
    """Channels after the encoder."""


@dataclass(frozen=True)
class Views:
    """A batch before it is encoded."""

    features_btf: Tensor
    """Normalised, nothing hidden."""
    lengths_b: Tensor
    frames_btd: Tensor
    """After the front end, which saw features with hidden frames, if the objective hides those."""
    frame_lengths_b: Tensor
    labels_bt: Tensor | None = None
    """What the stage `cluster` calls each frame, for objectives that ask for it."""


@dataclass
class Tally:
    """What was told of hidden frames; sums that may be added up over batches."""

    nats: Tensor
    """Of all hidden frames, as the loss is."""
    frames: Tensor
    """How many were hidden."""
    right: Tensor
    """How many were told right, over all codebooks."""
    codes_gv: Tensor
    """How often each code was to be told, by codebook."""
    guesses_gv: Tensor
    """Probability with which each code was told, summed."""

    @classmethod
    def of_loss(cls, nats: Tensor, hidden_bt: Tensor) -> Tally:
        """Of a batch that is trained on, of which nothing more is asked."""
        nothing = nats.new_zeros(())
        return cls(nats.detach(), hidden_bt.sum(), nothing, nothing, nothing)

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))

    def __iter__(self) -> Any:
        yield from (self.nats, self.frames, self.right, self.codes_gv, self.guesses_gv)


class Objective(nn.Module, ABC):
    """Hides frames, knows what was there, and says how well a model tells.

    A module of `(config, sizes)`. What is never learnt are buffers, so that the weights' file is
    all that there is to a pretrained model.
    """

    labels: ClassVar[bool] = False
    """Whether it asks for labels of the stage `cluster`."""

    def __init__(self, config: Masked, sizes: Sizes) -> None:
        super().__init__()
        self.probability, self.span, self.factor = config.probability, config.span, sizes.factor

    def hidden(self, frame_lengths_b: Tensor, frames: int) -> Tensor:
        """(B, T'): which frames after the front end are hidden, drawn anew for each utterance."""
        return hidden_spans(frame_lengths_b, frames, self.probability, self.span)

    def hide_features(self, features_btf: Tensor, hidden_bt: Tensor) -> Tensor:
        """Features with hidden frames; unchanged where frames are hidden after the front end."""
        return features_btf

    def hide_frames(self, frames_btd: Tensor, hidden_bt: Tensor) -> Tensor:
        """Frames after the front end with hidden ones; unchanged where features are hidden."""
        return frames_btd

    @abstractmethod
    def targets(self, views: Views, hidden_bt: Tensor) -> Any:
        """What is to be told of the hidden frames."""

    @abstractmethod
    def loss(self, y_btd: Tensor, targets: Any, hidden_bt: Tensor) -> tuple[Tensor, Tally]:
        """Nats of the hidden frames, summed, from the encoder's outputs; and what was told.

        In training nobody asks what was told, and counting it takes as long as a loss.
        """

    def blind(self, tally: Tally) -> float:
        """Nats of a frame that is told by who knows how often each code occurs, and not more."""
        return perplexity(tally.codes_gv.double()).log().mean().item()

    def anneal(self, done: float) -> None:
        """Told before each step what share of the training is done."""


def perplexity(weights: Tensor) -> Tensor:
    """exp of the entropy of weights over the last dimension; 1 where there are none."""
    shares = weights / weights.sum(-1, keepdim=True).clamp(min=1e-300)
    return torch.special.entr(shares).sum(-1).exp()


def counts(codes_ng: Tensor, size: int) -> Tensor:
    """How often each code occurs, by codebook: (N, G) -> (G, V)."""
    return torch.stack([torch.bincount(codes_n, minlength=size) for codes_n in codes_ng.unbind(1)])
