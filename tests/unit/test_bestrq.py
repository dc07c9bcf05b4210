"""BEST-RQ: what is hidden, what its labels are, what is learnt, what it may not hang on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightasr.models.pretrained import PretrainingModel
from lightasr.objectives import masks
from lightasr.objectives.masks import hidden_spans, spread
from lightasr.objectives.objective import Sizes, Tally, Views
from lightasr.objectives.pretraining import bestrq
from lightasr.objectives.pretraining.bestrq import BestRQ
from lightasr.schema import COMPONENTS, PretrainSlice

FEATURES, FACTOR, DIM = 6, 4, 10
SIZES = Sizes(FEATURES, FACTOR, 12, DIM)


def objective(**keys: Any) -> BestRQ:
    config = COMPONENTS["objective"]["bestrq"].model_validate(
        {"name": "bestrq", "codes": 32, "code_dim": 5, **keys}
    )
    return BestRQ(config, SIZES)


def views(frames: list[int]) -> Views:
    """Features of utterances that last so many frames after the front end, the last one short."""
    lengths_b = torch.tensor([FACTOR * n - 1 for n in frames])
    x_btf = torch.randn(len(frames), int(lengths_b.max()) + 3, FEATURES)
    return Views(x_btf, lengths_b, torch.empty(0), torch.tensor(frames))


# --- what is hidden -----------------------------------------------------------------------------


@pytest.mark.parametrize(("probability", "span"), [(0.15, 4), (0.065, 10), (0.5, 1)])
def test_each_frame_is_hidden_with_the_probability_of_the_closed_form(
    probability: float, span: int
) -> None:
    """The first and the last frames of an utterance, too."""
    draws, frames = 20_000, 12
    hidden_bt = hidden_spans(torch.full((draws,), frames), frames, probability, span)
    expected = 1 - (1 - probability) ** span
    error = 5 * (expected * (1 - expected) / draws) ** 0.5
    assert (hidden_bt.float().mean(0) - expected).abs().max() < error
    config = COMPONENTS["objective"]["bestrq"].model_validate(
        {"name": "bestrq", "probability": probability, "span": span}
    )
    assert config.hidden == pytest.approx(expected)  # type: ignore[attr-defined]


def test_frames_a_span_apart_are_hidden_independently_and_neighbours_together() -> None:
    probability, span = 0.15, 4
    hidden_bt = hidden_spans(torch.full((20_000,), 12), 12, probability, span).float()
    correlation_tt = torch.corrcoef(hidden_bt.T)
    assert (correlation_tt.triu(span)).abs().max() < 0.04
    share = 1 - (1 - probability) ** span
    both = 1 - 2 * (1 - probability) ** span + (1 - probability) ** (span + 1)
    expected = (both - share**2) / (share * (1 - share))
    assert correlation_tt.diagonal(1).mean() == pytest.approx(expected, abs=0.02)


def test_utterances_have_their_own_spans_and_padding_none() -> None:
    hidden_bt = hidden_spans(torch.tensor([50, 50, 20, 0]), 50, 0.15, 4)
    assert not torch.equal(hidden_bt[0], hidden_bt[1])
    assert not hidden_bt[2, 20:].any()
    assert not hidden_bt[3].any()


def test_a_hidden_frame_hides_all_features_that_become_it() -> None:
    hidden_bt = torch.tensor([[True, False, True]])
    assert spread(hidden_bt, 2, 5).tolist() == [[True, True, False, False, True]]


def test_hidden_features_are_noise_and_the_others_untouched() -> None:
    best = objective(noise=0.1)
    x_btf = torch.full((200, 8, FEATURES), 7.0)
    hidden_bt = torch.tensor([[False, True]]).expand(200, 2)
    y_btf = best.hide_features(x_btf, hidden_bt)
    assert torch.equal(y_btf[:, :4], x_btf[:, :4])
    assert y_btf[:, 4:].mean().abs() < 0.01
    assert y_btf[:, 4:].std() == pytest.approx(0.1, rel=0.05)


# --- labels -------------------------------------------------------------------------------------


def stacked(seen: Views, utterance: int) -> Tensor:
    """The features of each frame side by side, in float64, one after the other."""
    length = int(seen.lengths_b[utterance])
    rows = []
    for start in range(0, length, FACTOR):
        row = torch.zeros(FACTOR, FEATURES, dtype=torch.float64)
        piece = seen.features_btf[utterance, start : min(start + FACTOR, length)].double()
        row[: len(piece)] = piece
        rows.append(row.flatten())
    return torch.stack(rows)


@pytest.mark.parametrize("codebooks", [1, 3])
@pytest.mark.parametrize("norm", ["codes", "time"])
def test_a_label_is_the_nearest_code(
    codebooks: int, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By distances in float64, whatever the pieces in which labels are made."""
    monkeypatch.setattr(bestrq, "SCORES_AT_ONCE", 5 * 32)
    best, seen = objective(codebooks=codebooks, norm=norm), views([9, 5])
    hidden_bt = torch.rand(2, 10) < 0.6
    hidden_bt[1, 5:] = hidden_bt[0, 9:] = False
    labels_ng = best.targets(seen, hidden_bt)
    expected = []
    for utterance in range(2):
        x_ts = stacked(seen, utterance)
        of_books = []
        for projection_sc, codes_vc in zip(best.projection_gfc, best.codes_gvc, strict=True):
            projected_tc = F.normalize(
                x_ts @ projection_sc.double(), dim=-1 if norm == "codes" else 0
            )
            distances_tv = (projected_tc[:, None] - codes_vc.double()).norm(dim=-1)
            of_books.append(distances_tv.argmin(-1))
        labels_tg = torch.stack(of_books, -1)
        expected.append(labels_tg[hidden_bt[utterance, : len(labels_tg)]])
    assert torch.equal(labels_ng, torch.cat(expected))


@pytest.mark.parametrize("norm", ["codes", "time"])
def test_labels_do_not_hang_on_batch_mates_or_on_what_lies_in_padding(norm: str) -> None:
    best, seen = objective(norm=norm), views([4, 11])
    alone = Views(
        seen.features_btf[:1, : int(seen.lengths_b[0])],
        seen.lengths_b[:1],
        torch.empty(0),
        seen.frame_lengths_b[:1],
    )
    together = best.targets(seen, torch.tensor([[True] * 4 + [False] * 8, [False] * 12]))
    assert torch.equal(together, best.targets(alone, torch.ones(1, 4, dtype=torch.bool)))


def test_codes_have_length_one_and_nothing_of_a_label_is_learnt() -> None:
    best = objective(codebooks=2)
    assert torch.allclose(best.codes_gvc.norm(dim=-1), torch.ones(2, 32))
    assert {name for name, _ in best.named_parameters()} == {"tell.weight", "tell.bias"}
    assert {"projection_gfc", "codes_gvc"} <= best.state_dict().keys()


# --- the loss -----------------------------------------------------------------------------------


def test_the_loss_is_of_hidden_frames_alone_and_the_mean_over_codebooks() -> None:
    best = objective(codebooks=2).eval()
    y_btd = torch.randn(2, 7, DIM, requires_grad=True)
    hidden_bt = torch.rand(2, 7) < 0.5
    targets_ng = torch.randint(32, (int(hidden_bt.sum()), 2))
    nats, tally = best.loss(y_btd, targets_ng, hidden_bt)
    logp_ngv = best.tell(y_btd[hidden_bt]).unflatten(-1, (2, 32)).log_softmax(-1)
    expected = -logp_ngv.gather(-1, targets_ng[..., None]).sum() / 2
    torch.testing.assert_close(nats, expected)
    (gradient_btd,) = torch.autograd.grad(nats, y_btd)
    assert (gradient_btd.abs().sum(-1) > 0).equal(hidden_bt)
    assert tally.frames == hidden_bt.sum()
    assert tally.right == (logp_ngv.argmax(-1) == targets_ng).sum() / 2
    assert torch.equal(tally.codes_gv.sum(-1), hidden_bt.sum().expand(2))
    torch.testing.assert_close(tally.guesses_gv, logp_ngv.exp().sum(0))


def test_who_does_not_look_pays_the_entropy_of_the_codes() -> None:
    nothing = torch.zeros(())
    codes_gv = torch.tensor([[3, 3, 0], [5, 0, 0]])
    tally = Tally(nothing, nothing, nothing, codes_gv, codes_gv)
    assert objective(codebooks=2).blind(tally) == pytest.approx(math.log(2) / 2)


# --- the whole model ----------------------------------------------------------------------------


STRIDES = [[1, 3], [3, 4], [2, 2], [2, 3]]
FRONTENDS = [
    *({"name": "stacking", "frames": frames} for frames in range(1, 9)),
    *({"name": "conv2d", "channels": [4, 4], "time_strides": strides} for strides in STRIDES),
]


@pytest.mark.parametrize("frontend", FRONTENDS, ids=str)
def test_labels_are_of_all_features_that_become_a_frame(frontend: dict[str, Any]) -> None:
    """Whatever the front end's stride: no feature is left out, none is in two frames."""
    model = pretraining(frontend=frontend).train()
    expected = frontend.get("frames") or math.prod(frontend["time_strides"])
    assert model.objective.factor == expected
    assert model.objective.projection_gfc.shape[1] == expected * 8
    for frames in range(60, 73):
        learnt = model(torch.randn(2, frames, 8), torch.tensor([frames, 50]))
        assert learnt.nats.isfinite()


def test_codes_drawn_by_a_seed_of_their_own_are_the_same_for_all_encoders() -> None:
    def codes(seed: int | None, **encoder: Any) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        best = pretraining(
            encoder={"name": "transformer", "dim": 16, "layers": 1, **encoder},
            objective={"name": "bestrq", "codes": 16, "code_dim": 4, "seed": seed},
        ).objective
        return best.projection_gfc, best.codes_gvc

    for own, others in zip(codes(5), codes(5, mixer={"name": "fnet"}), strict=True):
        assert torch.equal(own, others)
    for own, others in zip(codes(5), codes(6), strict=True):
        assert not torch.equal(own, others)
    assert not torch.equal(codes(None)[0], codes(None, mixer={"name": "fnet"})[0])


def pretraining(**keys: Any) -> PretrainingModel:
    config = PretrainSlice.model_validate(
        {
            "features": {"mels": 8},
            "normalize": "utterance",
            "frontend": {"name": "conv2d", "channels": [4, 4], "norm": "none"},
            "encoder": {"name": "transformer", "dim": 16, "layers": 2, "dropout": 0.0},
            "objective": {"name": "bestrq", "codes": 16, "code_dim": 4},
            "train": {},
            "collapse": {},
            "dev": "dev-clean",
        }
        | keys,
        strict=False,
    )
    return PretrainingModel(config)


@pytest.mark.parametrize("encoder", ["transformer", "ds2", "convnext"])
def test_a_batch_mate_changes_neither_loss_nor_outputs(
    encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pretraining(encoder={"name": encoder, "dim": 16, "layers": 2}).eval()
    monkeypatch.setattr(model.objective, "hide_features", lambda x_btf, _: 0.5 * x_btf)
    frames = torch.arange(40) % 3 == 0
    monkeypatch.setattr(
        model.objective,
        "hidden",
        lambda lengths_b, size: masks.valid_mask(lengths_b, size) & frames[:size],
    )
    short_tf, long_tf = torch.randn(37, 8), torch.randn(90, 8)
    alone = model(short_tf[None], torch.tensor([37]))
    both_btf = torch.full((2, 90, 8), 1e4)
    both_btf[0, :37], both_btf[1] = short_tf, long_tf
    together = model(both_btf, torch.tensor([37, 90]))
    other = model(long_tf[None], torch.tensor([90]))
    torch.testing.assert_close(together.nats, alone.nats + other.nats)
    torch.testing.assert_close(together.y_btd[:1, :10], alone.y_btd, atol=1e-5, rtol=1e-4)


def test_a_batch_of_nothing_has_no_loss_and_a_gradient_for_every_weight() -> None:
    """A process that has no part in a step takes part in the sum of gradients."""
    model = pretraining()
    learnt = model(torch.randn(1, 30, 8), torch.zeros(1, dtype=torch.long))
    learnt.nats.backward()
    assert learnt.nats.item() == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_labels_are_the_same_in_every_precision(dtype: torch.dtype) -> None:
    best, seen = objective(), views([9, 5])
    hidden_bt = masks.valid_mask(torch.tensor([9, 5]), 10)
    with torch.autocast("cpu", dtype=dtype):
        found = best.targets(seen, hidden_bt)
    assert torch.equal(found, best.targets(seen, hidden_bt))
