"""wav2vec 2.0: what a hidden frame is told from, how targets are made, and what the loss is."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from lightasr import schema
from lightasr.models.layers import valid_mask
from lightasr.models.pretrained import PretrainingModel
from lightasr.objectives.objective import Sizes, Views
from lightasr.objectives.pretraining import wav2vec2
from lightasr.objectives.pretraining.wav2vec2 import Config, Targets, Wav2Vec2, drawn_negatives

FRAMES, FRONTEND, ENCODER = 30, 12, 10
BOOKS, CODES, NEGATIVES = 2, 5, 7
SIZES = Sizes(features=8, factor=4, frontend=FRONTEND, encoder=ENCODER)


def objective(**settings: float) -> Wav2Vec2:
    small = {"codebooks": BOOKS, "codes": CODES, "code_dim": 6, "negatives": NEGATIVES}
    return Wav2Vec2(Config.model_validate({"name": "wav2vec2", **small, **settings}), SIZES)


def views(frames_btd: Tensor, lengths_b: Tensor) -> Views:
    features_btf = torch.zeros(len(lengths_b), 4 * frames_btd.shape[1], SIZES.features)
    return Views(features_btf, 4 * lengths_b, frames_btd, lengths_b)


def hidden_frames(lengths_b: Tensor, share: float = 0.5) -> Tensor:
    hidden_bt = (torch.rand(len(lengths_b), FRAMES) < share) & valid_mask(lengths_b, FRAMES)
    hidden_bt[:, :2] = lengths_b[:, None] > 1  # at least two, where there are as many
    return hidden_bt


def all_gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert found.keys() == dict(module.named_parameters()).keys()
    return found


# --- negatives ----------------------------------------------------------------------------------


def test_negatives_are_other_hidden_frames_of_the_same_utterance() -> None:
    """Numbers count hidden frames alone, so padding and what is seen have none."""
    hidden_b = torch.randint(2, 40, (50,))
    number_n = torch.arange(int(hidden_b.sum()))
    utterance_n = torch.arange(50).repeat_interleave(hidden_b)
    drawn_nk = drawn_negatives(hidden_b, 400)
    assert (drawn_nk != number_n[:, None]).all()
    assert (utterance_n[drawn_nk] == utterance_n[:, None]).all()


def test_numbers_of_hidden_frames_are_in_the_order_in_which_a_mask_takes_them() -> None:
    """What is not hidden, padding included, may be no number: it reaches neither loss nor tally."""
    own, lengths_b = objective().eval(), torch.tensor([FRAMES, 9, 17])
    hidden_bt = hidden_frames(lengths_b)
    frames_btd, y_btd = torch.randn(3, FRAMES, FRONTEND), torch.randn(3, FRAMES, ENCODER)
    for x_btd in (frames_btd, y_btd):
        x_btd[~hidden_bt] = torch.nan
    loss, tally = own.loss(y_btd, own.targets(views(frames_btd, lengths_b), hidden_bt), hidden_bt)
    assert loss.isfinite()
    assert tally.frames == hidden_bt.sum()


def test_each_other_frame_is_drawn_equally_often() -> None:
    hidden, draws = 9, 8000
    drawn_nk = drawn_negatives(torch.tensor([4, hidden, 3]), draws)[4 : 4 + hidden] - 4
    seen_nm = torch.stack([torch.bincount(drawn_k, minlength=hidden) for drawn_k in drawn_nk])
    assert (seen_nm.diagonal() == 0).all()
    expected = draws / (hidden - 1)
    others_nm = seen_nm[~torch.eye(hidden, dtype=torch.bool)].double()
    chi_square = ((others_nm - expected) ** 2 / expected).sum().item()
    freedom = hidden * (hidden - 2)
    assert abs(chi_square - freedom) < 6 * math.sqrt(2 * freedom)


# --- targets ------------------------------------------------------------------------------------


def test_in_training_one_code_of_each_codebook_is_chosen_with_the_gradient_of_the_softmax() -> None:
    quantiser = objective().train().quantiser
    scores_ngv = torch.randn(40, BOOKS, CODES, requires_grad=True)
    weights_ngv = torch.randn(40, BOOKS, CODES)
    torch.manual_seed(seed := int(torch.randint(1000, ())))
    chosen_ngv = quantiser.chosen(scores_ngv, 0.7)
    assert set(chosen_ngv.unique().tolist()) == {0.0, 1.0}
    assert (chosen_ngv.sum(-1) == 1).all()
    (found_ngv,) = torch.autograd.grad((chosen_ngv * weights_ngv).sum(), scores_ngv)

    torch.manual_seed(seed)
    noise_ngv = -torch.empty_like(scores_ngv).exponential_().log()
    soft_ngv = ((scores_ngv + noise_ngv) / 0.7).softmax(-1)
    (expected_ngv,) = torch.autograd.grad((soft_ngv * weights_ngv).sum(), scores_ngv)
    torch.testing.assert_close(found_ngv, expected_ngv)


def test_in_training_codes_are_drawn_as_probably_as_their_softmax_says() -> None:
    scores_v, draws = torch.randn(CODES), 40_000
    chosen_ngv = objective().train().quantiser.chosen(scores_v.expand(draws, 1, CODES), 1.3)
    torch.testing.assert_close(chosen_ngv.mean((0, 1)), scores_v.softmax(-1), atol=0.02, rtol=0)


def test_in_evaluation_the_best_code_is_chosen_and_utterances_do_not_depend_on_batch_mates() -> (
    None
):
    own, lengths_b = objective().eval(), torch.tensor([FRAMES, 11])
    frames_btd, hidden_bt = torch.randn(2, FRAMES, FRONTEND), hidden_frames(lengths_b)
    together = own.targets(views(frames_btd, lengths_b), hidden_bt)
    alone = own.targets(views(frames_btd[1:, :11], lengths_b[1:]), hidden_bt[1:, :11])
    first = int(hidden_bt[0].sum())
    torch.testing.assert_close(together.q_nc[first:], alone.q_nc)
    assert torch.equal(together.codes_ng[first:], alone.codes_ng)

    x_nd = torch.nn.functional.layer_norm(frames_btd[hidden_bt], (FRONTEND,))
    scores_nv = x_nd @ own.quantiser.choose.weight.T + own.quantiser.choose.bias
    assert torch.equal(together.codes_ng, scores_nv.unflatten(1, (BOOKS, CODES)).argmax(-1))


def test_targets_are_learnt_by_the_quantiser_and_by_the_front_end_at_hidden_frames() -> None:
    own, lengths_b = objective().train(), torch.tensor([FRAMES, 11])
    frames_btd = torch.randn(2, FRAMES, FRONTEND, requires_grad=True)
    hidden_bt = hidden_frames(lengths_b)
    own.targets(views(frames_btd, lengths_b), hidden_bt).q_nc.square().sum().backward()
    assert frames_btd.grad is not None
    assert torch.equal(frames_btd.grad.abs().sum(-1) > 0, hidden_bt)
    assert all(gradient.abs().max() > 0 for gradient in all_gradients(own.quantiser).values())


def test_the_temperature_goes_from_one_end_to_the_other_by_equal_factors() -> None:
    own = objective(temperature=2.0, temperature_end=0.5)
    found = []
    for done in (0.5, 0.0, 1.0, 0.25, 0.75):  # it depends on what is done alone
        own.anneal(done)
        found.append(own.temperature)
    assert found == pytest.approx([1.0, 2.0, 0.5, 2**0.5, 2**-0.5])
    assert objective(temperature=3.0).temperature == 3.0


def test_codes_that_do_not_fit_side_by_side_are_refused() -> None:
    with pytest.raises(ValidationError, match="'codebooks' does not divide 'code_dim'"):
        objective(code_dim=7)


# --- loss ---------------------------------------------------------------------------------------


def naive_loss(
    own: Wav2Vec2, y_btd: Tensor, targets: Targets, hidden_bt: Tensor, drawn_nk: Tensor
) -> tuple[float, float, int]:
    """Frame by frame in float64: contrastive nats, diversity loss, frames told right."""
    q_nc, weight, bias = (x.double() for x in (targets.q_nc, own.tell.weight, own.tell.bias))
    nats, right = 0.0, 0
    for n, y_d in enumerate(y_btd[hidden_bt].double()):
        told_c = weight @ y_d + bias
        rivals = [int(m) for m in drawn_nk[n] if not targets.codes_ng[m].equal(targets.codes_ng[n])]
        scores = [
            (told_c @ q_nc[m] / told_c.norm() / q_nc[m].norm() / 0.1).item() for m in (n, *rivals)
        ]
        nats -= scores[0] - math.log(sum(math.exp(score) for score in scores))
        right += bool(rivals) and scores[0] > max(scores[1:])
    used = [math.exp(-sum(p * math.log(p) for p in row if p)) for row in targets.shares_gv.tolist()]
    return nats, len(q_nc) * (1 - sum(used) / BOOKS / CODES), right


def test_the_loss_is_what_the_equation_says(monkeypatch: pytest.MonkeyPatch) -> None:
    own, lengths_b = objective(diversity=0.3).eval(), torch.tensor([FRAMES, 1, 21, 8])
    hidden_bt, y_btd = hidden_frames(lengths_b), torch.randn(4, FRAMES, ENCODER)
    hidden_bt[1, 0] = True  # alone in its utterance
    targets = own.targets(views(torch.randn(4, FRAMES, FRONTEND), lengths_b), hidden_bt)
    drawn_nk = drawn_negatives(hidden_bt.sum(1), NEGATIVES)
    monkeypatch.setattr(wav2vec2, "drawn_negatives", lambda hidden_b, count: drawn_nk)
    loss, tally = own.loss(y_btd, targets, hidden_bt)
    nats, disuse, right = naive_loss(own, y_btd, targets, hidden_bt, drawn_nk)
    assert tally.nats.item() == pytest.approx(nats, rel=1e-5)
    assert loss.item() == pytest.approx(nats + 0.3 * disuse, rel=1e-5)
    assert tally.right == right
    assert tally.frames == hidden_bt.sum() == tally.codes_gv.sum() / BOOKS
    assert tally.guesses_gv.sum() == tally.codes_gv.sum()


def test_an_utterances_nats_do_not_depend_on_its_batch_mates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, lengths_b = objective().eval(), torch.tensor([FRAMES, 11])
    hidden_bt = hidden_frames(lengths_b)
    frames_btd, y_btd = torch.randn(2, FRAMES, FRONTEND), torch.randn(2, FRAMES, ENCODER)
    drawn_nk, first = drawn_negatives(hidden_bt.sum(1), NEGATIVES), int(hidden_bt[0].sum())

    def nats(utterances: slice, frames: int, drawn_nk: Tensor) -> Tensor:
        monkeypatch.setattr(wav2vec2, "drawn_negatives", lambda hidden_b, count: drawn_nk)
        seen_bt = hidden_bt[utterances, :frames]
        seen = views(frames_btd[utterances, :frames], lengths_b[utterances])
        return own.loss(y_btd[utterances, :frames], own.targets(seen, seen_bt), seen_bt)[1].nats

    longer = nats(slice(0, 1), FRAMES, drawn_nk[:first])
    shorter = nats(slice(1, 2), 11, drawn_nk[first:] - first)
    torch.testing.assert_close(nats(slice(0, 2), FRAMES, drawn_nk), longer + shorter)


def test_a_negative_with_the_codes_of_the_frame_is_left_out() -> None:
    """All frames are quantised alike: nothing is left to be told from, and nothing is told."""
    own, lengths_b = objective(diversity=0).eval(), torch.tensor([FRAMES])
    frames_btd = torch.randn(1, 1, FRONTEND).expand(1, FRAMES, FRONTEND)
    hidden_bt, y_btd = hidden_frames(lengths_b), torch.randn(1, FRAMES, ENCODER)
    loss, tally = own.loss(y_btd, own.targets(views(frames_btd, lengths_b), hidden_bt), hidden_bt)
    assert loss == tally.nats == tally.right == 0
    assert (tally.codes_gv.max(1).values == hidden_bt.sum()).all()


def test_diversity_costs_nothing_where_codes_are_used_equally_and_most_where_one_is() -> None:
    uniform_gv = torch.full((BOOKS, CODES), 1 / CODES)
    one_gv = torch.eye(CODES)[torch.randint(CODES, (BOOKS,))].requires_grad_()
    assert wav2vec2.disuse(uniform_gv).item() == pytest.approx(0, abs=1e-6)
    assert wav2vec2.disuse(one_gv).item() == pytest.approx(1 - 1 / CODES)
    between = wav2vec2.disuse(torch.rand(BOOKS, CODES).softmax(-1)).item()
    assert 0 < between < 1 - 1 / CODES
    wav2vec2.disuse(one_gv).backward()
    assert one_gv.grad is not None
    assert one_gv.grad.isfinite().all()


# --- learning -----------------------------------------------------------------------------------


def small_model() -> PretrainingModel:
    config = schema.Experiment.model_validate(
        {
            "features": {"mels": SIZES.features},
            "model": {
                "frontend": {"name": "stacking", "dim": FRONTEND},
                "encoder": {"name": "transformer", "dim": 16, "layers": 1, "feedforward": 16},
            },
            "pretrain": {"objective": {"name": "wav2vec2", "codes": CODES, "code_dim": 6}},
        }
    )
    assert config.pretrain is not None
    return PretrainingModel(
        schema.PretrainSlice(
            features=config.features,
            normalize="none",
            frontend=config.model.frontend,
            encoder=config.model.encoder,
            objective=config.pretrain.objective,
            train=config.pretrain.train,
            collapse=config.pretrain.collapse,
            dev="dev-clean",
        )
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_parameters_learn(dtype: torch.dtype) -> None:
    model = small_model().train()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
        learnt = model(torch.randn(3, 160, SIZES.features), torch.tensor([160, 101, 33]))
    assert learnt.nats.dtype is torch.float32
    learnt.nats.backward()
    for name, gradient in all_gradients(model).items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("lengths", [(0, 0), (1, 0), (4, 3)])
def test_a_batch_with_nothing_to_tell_has_no_loss_and_still_gradients(
    lengths: tuple[int, int],
) -> None:
    """One hidden frame in an utterance has nothing that it could be told from."""
    model = small_model().train()
    learnt = model(torch.randn(2, 40, SIZES.features), torch.tensor(lengths))
    assert learnt.tally.nats == learnt.tally.right == 0
    assert learnt.nats.isfinite()
    if not learnt.tally.frames:
        assert learnt.nats == 0
    learnt.nats.backward()
    assert all(gradient.isfinite().all() for gradient in all_gradients(model).values())


def test_hidden_frames_alone_are_replaced_by_the_learnt_vector() -> None:
    own, hidden_bt = objective(), hidden_frames(torch.tensor([FRAMES, 9]))
    frames_btd = torch.randn(2, FRAMES, FRONTEND)
    found_btd = own.hide_frames(frames_btd, hidden_bt)
    assert torch.equal(found_btd[~hidden_bt], frames_btd[~hidden_bt])
    assert (found_btd[hidden_bt] == own.mask_d).all()


def test_it_learns_to_tell_frames_from_others() -> None:
    """An encoder that lets everything through, on frames of which there are few kinds."""
    own = objective().train()
    kinds_kd, lengths_b = torch.randn(8, FRONTEND), torch.tensor([FRAMES] * 8)
    look = torch.nn.Linear(FRONTEND, ENCODER)
    optimizer = torch.optim.Adam([*own.parameters(), *look.parameters()], 0.01)
    nats = []
    for _ in range(200):
        frames_btd = kinds_kd[torch.randint(8, (8, FRAMES))]
        hidden_bt = own.hidden(lengths_b, FRAMES)
        targets = own.targets(views(frames_btd, lengths_b), hidden_bt)
        loss, tally = own.loss(look(frames_btd), targets, hidden_bt)
        optimizer.zero_grad()
        (loss / tally.frames).backward()
        optimizer.step()
        nats.append((tally.nats / tally.frames).item())
    assert sum(nats[-10:]) / 10 < 0.5 * math.log(1 + NEGATIVES)
