"""Which frames are hidden from a model that has to tell what was there."""

from __future__ import annotations

import torch
from torch import Tensor

from lightasr.models.layers import valid_mask


def hidden_spans(lengths_b: Tensor, frames: int, probability: float, span: int) -> Tensor:
    """(B, T): True where a frame is hidden, drawn for each utterance.

    A span of frames begins at any frame with this probability, also at the `span` - 1 before the
    first one. So each frame of an utterance, whatever its place, is hidden with probability
    1 - (1 - probability)^span, and any two frames `span` or more apart independently.
    """
    begins_bt = torch.rand(len(lengths_b), frames + span - 1, device=lengths_b.device) < probability
    return begins_bt.unfold(1, span, 1).any(-1) & valid_mask(lengths_b, frames)


def spread(hidden_bt: Tensor, factor: int, frames: int) -> Tensor:
    """(B, T): the same over the feature frames of which `factor` become one."""
    return hidden_bt.repeat_interleave(factor, dim=1)[:, :frames]
