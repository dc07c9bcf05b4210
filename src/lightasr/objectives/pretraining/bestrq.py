"""BEST-RQ: tell the random codes of hidden features.

    y_t = argmax_v <c_v, P x_t / |P x_t|>,    x_t: the features that become one frame, side by side

with a random matrix P and random codes c_v of length one, neither of which is learnt. As both have
length one, that is the nearest code, found by one product of matrices. Chiu et al.,
"Self-supervised learning with random-projection quantizer for speech recognition", arXiv
2202.01855. Ours: several codebooks are heads of one linear layer; labels are made of hidden frames
only, in pieces, so that they take little memory however many codes there are.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lightasr.models.layers import stacked
from lightasr.models.registry import register
from lightasr.objectives.masks import spread
from lightasr.objectives.objective import Objective, Sizes, Tally, Views, counts
from lightasr.schema import Masked, Positive, unless

SCORES_AT_ONCE = 1 << 20  # numbers that a piece of labels takes, whatever the codes: 4 MB


class Config(Masked):
    """Cross-entropy of the codes of hidden frames, which are noise to the model."""

    codebooks: Positive = 1
    """Codes that each frame has, of one random projection each."""
    codes: Positive = 8192
    """Codes of a codebook."""
    code_dim: Positive = 16
    """Numbers in a code."""
    seed: int | None = unless(None)
    """Of projections and codes, where encoders are compared that are to tell the same ones; null:
    they are drawn after the encoder's weights, so that each encoder has its own."""
    noise: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of what stands in place of hidden features."""
    norm: Literal["codes", "time"] = "codes"
    """What projected features have length one over: the numbers of a code, as is meant; or `time`:
    each of them over the utterance, as public code did by mistake until February 2025."""


@register("objective")
class BestRQ(Objective):
    """Labels are integers (N, G) of the N hidden frames."""

    def __init__(self, config: Config, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.noise, self.norm = config.noise, config.norm
        projection_gfc = torch.empty(
            config.codebooks, sizes.factor * sizes.features, config.code_dim
        )
        drawn = None if config.seed is None else torch.Generator().manual_seed(config.seed)
        for projection_fc in projection_gfc:
            nn.init.xavier_uniform_(projection_fc, generator=drawn)
        codes_gvc = torch.randn(config.codebooks, config.codes, config.code_dim, generator=drawn)
        self.register_buffer("projection_gfc", projection_gfc)
        self.register_buffer("codes_gvc", F.normalize(codes_gvc, dim=-1))
        self.projection_gfc: Tensor
        self.codes_gvc: Tensor
        self.tell = nn.Linear(sizes.encoder, config.codebooks * config.codes)

    def hide_features(self, features_btf: Tensor, hidden_bt: Tensor) -> Tensor:
        hidden_bt = spread(hidden_bt, self.factor, features_btf.shape[1])
        noise_btf = self.noise * torch.randn_like(features_btf)
        return torch.where(hidden_bt[:, :, None], noise_btf, features_btf)

    @torch.no_grad()
    def targets(self, views: Views, hidden_bt: Tensor) -> Tensor:
        with torch.autocast(views.features_btf.device.type, enabled=False):
            stacked_bts = stacked(views.features_btf.float(), views.lengths_b, self.factor)
            projected = [self.projected(stacked_bts, p, hidden_bt) for p in self.projection_gfc]
            labels = [
                nearest(x_nc, codes_vc)
                for x_nc, codes_vc in zip(projected, self.codes_gvc, strict=True)
            ]
        return torch.stack(labels, dim=1)

    def projected(self, stacked_bts: Tensor, projection_fc: Tensor, hidden_bt: Tensor) -> Tensor:
        """(N, C): of hidden frames."""
        if self.norm == "time":
            return F.normalize(stacked_bts @ projection_fc, dim=1)[hidden_bt]
        return F.normalize(stacked_bts[hidden_bt] @ projection_fc, dim=-1)

    def loss(self, y_btd: Tensor, targets: Tensor, hidden_bt: Tensor) -> tuple[Tensor, Tally]:
        books, codes = self.codes_gvc.shape[:2]
        scores_ngv = self.tell(y_btd[hidden_bt]).float().unflatten(-1, (books, codes))
        nats = F.cross_entropy(scores_ngv.flatten(0, 1), targets.flatten(), reduction="sum") / books
        if self.training:
            return nats, Tally.of_loss(nats, hidden_bt)
        return nats, Tally(
            nats,
            hidden_bt.sum(),
            (scores_ngv.argmax(-1) == targets).sum() / books,
            counts(targets, codes),
            scores_ngv.softmax(-1).sum(0),
        )


def nearest(x_nc: Tensor, codes_vc: Tensor) -> Tensor:
    """The code in whose direction each row points most; ties go to the first."""
    pieces = torch.split(x_nc, max(1, SCORES_AT_ONCE // len(codes_vc)))
    return torch.cat([(piece_nc @ codes_vc.T).argmax(-1) for piece_nc in pieces])
