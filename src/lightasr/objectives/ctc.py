"""Connectionist temporal classification: the loss of a transcript under frame-wise symbols."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def ctc_loss(
    logp_btv: Tensor, lengths_b: Tensor, targets_bu: Tensor, target_lengths_b: Tensor
) -> Tensor:
    """Nats of the batch's transcripts, summed.

    To be divided by the number of symbols, so that long and short utterances weigh alike.
    Utterances too short for their transcript must not come here: their loss is infinite.
    """
    return F.ctc_loss(
        logp_btv.transpose(0, 1), targets_bu, lengths_b, target_lengths_b, reduction="sum"
    )
