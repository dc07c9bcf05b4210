"""BEST-RQ's labels are the nearest codes, by either norm, as SpeechBrain's quantizer tells."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightasr.models.layers import valid_mask
from lightasr.objectives.objective import Sizes, Views
from lightasr.objectives.pretraining import bestrq
from lightasr.objectives.pretraining.bestrq import BestRQ

FEATURES, FACTOR, CODES, CODE_DIM = 8, 4, 300, 6
SIZES = Sizes(FEATURES, FACTOR, frontend=12, encoder=12)
ROUNDING = 1e-6  # of fp32, in a distance between vectors of length one


def objective(**options: Any) -> BestRQ:
    config = {"name": "bestrq", "codes": CODES, "code_dim": CODE_DIM, **options}
    return BestRQ(bestrq.Config.model_validate(config), SIZES)


def views(lengths_b: Tensor) -> Views:
    """Features of utterances; what stands beyond their ends is not zero."""
    x_btf = 3 * torch.randn(len(lengths_b), int(lengths_b.max()), FEATURES) + 1
    frame_lengths_b = -(-lengths_b // FACTOR)
    return Views(x_btf, lengths_b, torch.empty(0), frame_lengths_b)


def some_hidden(seen: Views) -> Tensor:
    frames = int(seen.frame_lengths_b.max())
    valid_bt = valid_mask(seen.frame_lengths_b, frames)
    return valid_bt & (torch.rand(valid_bt.shape) < 0.6)


def projections(seen: Views, utterance: int, projection_fc: Tensor) -> Tensor:
    """(T', C) in fp64, of the frames of an utterance without its padding."""
    x_tf = seen.features_btf[utterance, : seen.lengths_b[utterance]].double()
    x_tf = torch.cat([x_tf, x_tf.new_zeros(-len(x_tf) % FACTOR, FEATURES)])
    return x_tf.reshape(-1, FACTOR * FEATURES) @ projection_fc.double()


def distances(x_tc: Tensor, codes_vc: Tensor) -> Tensor:
    return (x_tc[:, None] - codes_vc.double()).norm(dim=-1)


def assert_nearest(labels_n: Tensor, distances_nv: Tensor) -> None:
    """No code is nearer than the label, but by rounding; so nearly all are the very nearest."""
    found_n = distances_nv.gather(1, labels_n[:, None])[:, 0]
    assert (found_n - distances_nv.min(1).values).max() < ROUNDING
    assert (labels_n == distances_nv.argmin(1)).double().mean() > 0.98


@pytest.mark.parametrize("books", [1, 3])
def test_labels_are_the_codes_nearest_to_projections_of_length_one(books: int) -> None:
    ours, seen = objective(codebooks=books), views(torch.tensor([203, 96, 41]))
    hidden_bt = some_hidden(seen)
    labels_ng = ours.targets(seen, hidden_bt)
    assert labels_ng.shape == (int(hidden_bt.sum()), books)
    for book in range(books):
        naive = []
        for b, frames in enumerate(seen.frame_lengths_b):
            x_tc = projections(seen, b, ours.projection_gfc[book])
            unit_tc = x_tc / x_tc.norm(dim=1, keepdim=True)
            naive.append(distances(unit_tc, ours.codes_gvc[book])[hidden_bt[b, :frames]])
        assert_nearest(labels_ng[:, book], torch.cat(naive))


def test_by_time_each_projected_number_has_length_one_over_the_utterance() -> None:
    ours, seen = objective(norm="time"), views(torch.tensor([203, 96, 41]))
    hidden_bt = some_hidden(seen)
    naive = []
    for b, frames in enumerate(seen.frame_lengths_b):
        x_tc = projections(seen, b, ours.projection_gfc[0])
        by_time_tc = x_tc / x_tc.norm(dim=0)
        naive.append(distances(by_time_tc, ours.codes_gvc[0])[hidden_bt[b, :frames]])
    assert_nearest(ours.targets(seen, hidden_bt)[:, 0], torch.cat(naive))


def test_the_two_norms_give_other_labels() -> None:
    by_codes, seen = objective(), views(torch.tensor([120, 120]))
    by_time = objective(norm="time")
    by_time.load_state_dict(by_codes.state_dict())
    hidden_bt = some_hidden(seen)
    same = by_codes.targets(seen, hidden_bt) == by_time.targets(seen, hidden_bt)
    assert same.double().mean() < 0.9


# --- beside SpeechBrain's -----------------------------------------------------------------------


class AsItWas:
    """How SpeechBrain's quantizer normalised until February 2025: by `F.normalize` of (B, T, C)
    without a `dim`, which takes the second one."""

    @staticmethod
    def normalize(x_btc: Tensor, **dim: int) -> Tensor:
        return F.normalize(x_btc)


@pytest.mark.skipif(
    importlib.util.find_spec("speechbrain") is None, reason="speechbrain is not installed"
)
@pytest.mark.parametrize("norm", ["codes", "time"])
def test_labels_are_those_of_speechbrains_quantizer(
    norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All frames of equally long utterances, which need no padding there; then the hidden ones."""
    quantisers = importlib.import_module("speechbrain.nnet.quantisers")
    ours, seen = objective(norm=norm), views(torch.tensor([200, 200, 200]))
    theirs = quantisers.RandomProjectionQuantizer(FACTOR * FEATURES, CODE_DIM, CODES)
    theirs.P.copy_(ours.projection_gfc[0])
    theirs.CB.copy_(ours.codes_gvc[0])
    if norm == "time":
        monkeypatch.setattr(quantisers, "F", AsItWas)
    labels_bt = theirs(seen.features_btf.reshape(3, -1, FACTOR * FEATURES))
    hidden_bt = some_hidden(seen)
    same = ours.targets(seen, hidden_bt)[:, 0] == labels_bt[hidden_bt]
    assert same.double().mean() > 0.98  # all, but where two codes are as near up to rounding
