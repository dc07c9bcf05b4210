"""Connectionist temporal classification: the loss of a transcript under frame-wise symbols."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def ctc_loss(
    logp_btv: Tensor, lengths_b: Tensor, targets_bu: Tensor, target_lengths_b: Tensor
) -> Tensor:
    """Nats per symbol of the batch, so that long and short utterances weigh alike.

    Utterances too short for their transcript must not come here: their loss is infinite.
    """
    total = F.ctc_loss(
        logp_btv.transpose(0, 1), targets_bu, lengths_b, target_lengths_b, reduction="sum"
    )
    return total / target_lengths_b.sum()
