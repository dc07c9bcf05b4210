"""HuBERT: tell the clusters of hidden frames, which were found by k-means beforehand.

    p_t = softmax_v(cos(W y_t, e_v) / temperature)

with y_t the encoder's output at a hidden frame and e_v a learnt code of each cluster. The first
pretraining tells clusters of features, each later one those of what the one before has learnt; the
stage `cluster` makes both. Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by
Masked Prediction of Hidden Units", arXiv 2106.07447. Ours: clusters of the very features that the
front end reads, side by side, not of MFCCs; frames that are not hidden have no loss, which is what
the paper found best where labels are rough.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lightasr.models.registry import register
from lightasr.objectives.objective import Objective, Sizes, Tally, Views, counts
from lightasr.schema import Clustered, Positive


class Config(Clustered):
    """Cross-entropy of the clusters of hidden frames, in place of which is one learnt vector."""

    code_dim: Positive = 256
    """Numbers in the code of a cluster."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """What cosine similarities are divided by."""


@register("objective")
class Hubert(Objective):
    """Targets are the clusters (N) of the N hidden frames."""

    labels = True

    def __init__(self, config: Config, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.temperature = config.temperature
        self.mask_d = nn.Parameter(torch.rand(sizes.frontend))
        self.tell = nn.Linear(sizes.encoder, config.code_dim)
        self.codes_vc = nn.Parameter(torch.randn(config.clusters, config.code_dim))

    def hide_frames(self, frames_btd: Tensor, hidden_bt: Tensor) -> Tensor:
        return torch.where(hidden_bt[:, :, None], self.mask_d.to(frames_btd.dtype), frames_btd)

    def targets(self, views: Views, hidden_bt: Tensor) -> Tensor:
        assert views.labels_bt is not None, "the stage `cluster` comes before"
        return views.labels_bt[hidden_bt]

    def loss(self, y_btd: Tensor, targets: Tensor, hidden_bt: Tensor) -> tuple[Tensor, Tally]:
        y_nc = self.tell(y_btd[hidden_bt]).float()
        # In 16 bits a cosine has three digits, of which dividing by the temperature takes one.
        with torch.autocast(y_nc.device.type, enabled=False):
            cosines_nv = F.normalize(y_nc, dim=-1) @ F.normalize(self.codes_vc, dim=-1).T
            scores_nv = cosines_nv / self.temperature
            nats = F.cross_entropy(scores_nv, targets, reduction="sum")
        if self.training:
            return nats, Tally.of_loss(nats, hidden_bt)
        return nats, Tally(
            nats,
            hidden_bt.sum(),
            (scores_nv.argmax(-1) == targets).sum(),
            counts(targets[:, None], len(self.codes_vc)),
            scores_nv.softmax(-1).sum(0, keepdim=True),
        )
