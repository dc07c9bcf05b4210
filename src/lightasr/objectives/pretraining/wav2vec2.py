"""wav2vec 2.0: tell the quantised frame that is hidden from others hidden in the same utterance.

    L = sum_t -log softmax_j(cos(W y_t, q_j) / k)[t] + diversity * N * (1 - mean_g exp(H(p_g)) / V)

y_t: the encoder's output at a hidden frame; q_j: quantised frames to choose from; p_g: how probable
the codes of codebook g are on average over N hidden frames. Baevski et al., "wav2vec 2.0: A
Framework for Self-Supervised Learning of Speech Representations", arXiv 2006.11477. The second term
is the released code's; the paper prints H. Ours: mel features, normalised again by the quantiser.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from lightasr.models.registry import register
from lightasr.models.synced import sum_over_team
from lightasr.objectives.objective import Objective, Sizes, Tally, Views, counts
from lightasr.schema import Masked, Positive

TINY = 1e-30  # stands for zero where a logarithm is taken


class Config(Masked):
    """Contrastive loss of hidden frames, whose codes are learnt together with the model."""

    codebooks: Positive = 2
    """Codes that each frame has, side by side."""
    codes: Positive = 320
    """Codes of a codebook."""
    code_dim: Positive = 256
    """Numbers in the codes of a frame, all codebooks together."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Of the softmax through which the choice of codes is learnt, at the beginning."""
    temperature_end: Annotated[float, Field(gt=0)] = 0.5
    """The same at the end; it changes by equal factors."""
    similarity_temperature: Annotated[float, Field(gt=0)] = 0.1
    """What cosine similarities are divided by."""
    negatives: Positive = 100
    """Draws from the utterance's other hidden frames, from which a hidden one is to be told."""
    diversity: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the loss that grows where few codes are used."""

    @model_validator(mode="after")
    def codes_fit_side_by_side(self) -> Self:
        if self.code_dim % self.codebooks:
            raise ValueError("'codebooks' does not divide 'code_dim'")
        return self


class Targets(NamedTuple):
    """Quantised hidden frames, their codes, and how probable each code is, without noise."""

    q_nc: Tensor
    codes_ng: Tensor
    shares_gv: Tensor


class Quantiser(nn.Module):
    """Frames to codes: one of each codebook, side by side, then a linear layer."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        books, codes = config.codebooks, config.codes
        self.choose = nn.Linear(channels, books * codes)
        nn.init.normal_(self.choose.weight)  # so that frames, not noise, choose from the beginning
        self.codes_gvc = nn.Parameter(torch.randn(books, codes, config.code_dim // books))
        self.join = nn.Linear(config.code_dim, config.code_dim)

    def forward(self, x_nd: Tensor, temperature: float) -> Targets:
        scores_nv = self.choose(F.layer_norm(x_nd, x_nd.shape[-1:]))
        scores_ngv = scores_nv.unflatten(-1, self.codes_gvc.shape[:2])
        sum_gv, frames = scores_ngv.softmax(-1).sum(0), scores_ngv.new_tensor(len(x_nd))
        if self.training:  # over all processes, which have parts of one batch
            sum_gv, frames = sum_over_team(sum_gv), sum_over_team(frames)
        chosen_ngv = self.chosen(scores_ngv, temperature)
        q_nc = torch.einsum("ngv,gvc->ngc", chosen_ngv, self.codes_gvc).flatten(1)
        return Targets(self.join(q_nc), chosen_ngv.argmax(-1), sum_gv / frames.clamp(min=1))

    def chosen(self, scores_ngv: Tensor, temperature: float) -> Tensor:
        """One-hot: the best code, in training after Gumbel noise; its gradient is the softmax's."""
        if self.training:
            noise_ngv = -torch.empty_like(scores_ngv).exponential_().clamp(min=TINY).log()
            scores_ngv = (scores_ngv + noise_ngv) / temperature
        soft_ngv = scores_ngv.softmax(-1)
        hard_ngv = F.one_hot(scores_ngv.argmax(-1), scores_ngv.shape[-1])
        return hard_ngv + (soft_ngv - soft_ngv.detach())


@register("objective")
class Wav2Vec2(Objective):
    """Targets are the front end's own outputs, quantised, which are learnt, too."""

    def __init__(self, config: Config, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config, self.temperature = config, config.temperature
        self.mask_d = nn.Parameter(torch.rand(sizes.frontend))
        self.quantiser = Quantiser(config, sizes.frontend)
        self.tell = nn.Linear(sizes.encoder, config.code_dim)

    def anneal(self, done: float) -> None:
        first, last = self.config.temperature, self.config.temperature_end
        self.temperature = first * (last / first) ** done

    def blind(self, tally: Tally) -> float:
        """Of those to choose from, all as probable; fewer where some have the frame's own codes."""
        return math.log(1 + self.config.negatives)

    def hide_frames(self, frames_btd: Tensor, hidden_bt: Tensor) -> Tensor:
        return torch.where(hidden_bt[:, :, None], self.mask_d.to(frames_btd.dtype), frames_btd)

    def targets(self, views: Views, hidden_bt: Tensor) -> Targets:
        with torch.autocast(hidden_bt.device.type, enabled=False):
            x_nd = views.frames_btd[hidden_bt].float()
            return Targets(*self.quantiser(x_nd, self.temperature))

    def loss(self, y_btd: Tensor, targets: Targets, hidden_bt: Tensor) -> tuple[Tensor, Tally]:
        config, codes_ng, hidden_b = self.config, targets.codes_ng, hidden_bt.sum(1)
        own_n = places(hidden_b)[0]
        frames_nk = torch.cat([own_n[:, None], drawn_negatives(hidden_b, config.negatives)], dim=1)
        equal_nk = (codes_ng[frames_nk] == codes_ng[:, None]).all(-1)
        equal_nk[:, 0] = False  # the frame itself is to be found
        with torch.autocast(hidden_bt.device.type, enabled=False):
            told_nc = F.normalize(self.tell(y_btd[hidden_bt].float()), dim=-1)
            cosines_nk = products(told_nc, F.normalize(targets.q_nc, dim=-1), frames_nk, hidden_b)
        scores_nk = (cosines_nk / config.similarity_temperature).masked_fill(equal_nk, -torch.inf)
        nats = F.cross_entropy(scores_nk, torch.zeros_like(own_n), reduction="sum")
        loss = nats + config.diversity * len(codes_ng) * disuse(targets.shares_gv)
        if self.training:
            return loss, Tally.of_loss(nats, hidden_bt)
        guesses_n = frames_nk[own_n, scores_nk.argmax(1)]
        best_n = scores_nk[:, 1:].amax(1)  # -inf where nothing is left to be told from
        return loss, Tally(
            nats,
            hidden_b.sum(),
            ((scores_nk[:, 0] > best_n) & best_n.isfinite()).sum(),
            counts(codes_ng, config.codes),
            counts(codes_ng[guesses_n], config.codes),
        )


def places(hidden_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) of N hidden frames: their number, the utterance, and the number of its first one."""
    utterance_n = torch.arange(len(hidden_b), device=hidden_b.device).repeat_interleave(hidden_b)
    number_n = torch.arange(len(utterance_n), device=hidden_b.device)
    return number_n, utterance_n, (hidden_b.cumsum(0) - hidden_b)[utterance_n]


def drawn_negatives(hidden_b: Tensor, count: int) -> Tensor:
    """(N, count): numbers of others of the utterance, equally often; the own one if it is alone."""
    number_n, utterance_n, first_n = places(hidden_b)
    others_n1 = hidden_b[utterance_n, None] - 1
    drawn_nk = torch.randint(1 << 62, (len(number_n), count), device=hidden_b.device)
    # A remainder of so many is as good as uniform; numbers from the own one on move up by one.
    drawn_nk = first_n[:, None] + drawn_nk % others_n1.clamp(min=1)
    return drawn_nk + ((drawn_nk >= number_n[:, None]) & (others_n1 > 0))


def products(a_nc: Tensor, b_nc: Tensor, frames_nk: Tensor, hidden_b: Tensor) -> Tensor:
    """(N, K): of each a_n with the b of these frames, all of the same utterance."""
    # All M hidden frames of an utterance meet, then K are taken: M numbers a frame, 360 in 30 s,
    # where gathered vectors are K C = 25,600 and all pairs of a batch grow with its square.
    number_n, utterance_n, first_n = places(hidden_b)
    at = utterance_n, number_n - first_n
    empty_bmc = a_nc.new_zeros(len(hidden_b), int(hidden_b.max()), a_nc.shape[1])
    products_bmm = empty_bmc.index_put(at, a_nc) @ empty_bmc.index_put(at, b_nc).transpose(1, 2)
    return products_bmm[at].gather(1, frames_nk - first_n[:, None])


def disuse(shares_gv: Tensor) -> Tensor:
    """0 where all codes are equally probable, 1 - 1/V where one has it all."""
    entropy_g = -(shares_gv * shares_gv.clamp(min=TINY).log()).sum(-1)
    return 1 - entropy_g.exp().mean() / shares_gv.shape[1]
