"""HuBERT: clusters are those of k-means, and hidden frames' are what is learnt."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightasr.errors import LightasrError
from lightasr.models.layers import stacked
from lightasr.models.pretrained import PretrainingModel
from lightasr.objectives import masks
from lightasr.objectives.objective import Sizes, Views, perplexity
from lightasr.objectives.pretraining.hubert import Hubert
from lightasr.schema import COMPONENTS, Clustered, PretrainSlice
from lightasr.train import clusters
from lightasr.train.clusters import FrameLabels, Labelled, draw

CLUSTERS, DIM, CHANNELS = 7, 10, 12


def points(rows: int = 400, dim: int = 5) -> Tensor:
    """Around some centres, far from the origin."""
    centres_kd = 3 * torch.randn(CLUSTERS, dim) + 5
    return centres_kd[torch.randint(CLUSTERS, (rows,))] + torch.randn(rows, dim)


def kmeans(x_nd: Tensor, seed: int, count: int = CLUSTERS) -> clusters.Clusters:
    begun = clusters.beginnings(x_nd, count, np.random.default_rng(seed))
    *_, found = clusters.passes(x_nd, clusters.Clusters(begun, len(x_nd)))
    return found


def naive_step(x_nd: Tensor, centroids_kd: Tensor) -> tuple[Tensor, Tensor, float]:
    """One pass of Lloyd's algorithm, row by row: labels, means, and the distance before."""
    labels, distance = [], 0.0
    for x_d in x_nd:
        distances = [float(((x_d - c_d) ** 2).sum()) for c_d in centroids_kd]
        labels.append(distances.index(min(distances)))
        distance += min(distances)
    labels_n = torch.tensor(labels)
    means = [x_nd[labels_n == k].mean(0) for k in range(len(centroids_kd))]
    return labels_n, torch.stack(means), distance / len(x_nd)


# --- k-means ------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [64, 100_000])
def test_passes_are_those_of_lloyd_from_the_same_start(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever pieces the rows are worked on in."""
    monkeypatch.setattr(clusters, "FRAMES_AT_ONCE", at_once)
    x_nd = points()
    ours = clusters.beginnings(x_nd, CLUSTERS, np.random.default_rng(1))
    naive = ours.double()
    for _ in range(6):
        labels_n, naive, distance = naive_step(x_nd.double(), naive)
        found_n, _ = clusters.nearest(x_nd, ours)
        ours, inertia = clusters.improved(x_nd, ours)
        assert torch.equal(found_n, labels_n)
        assert inertia == pytest.approx(distance, rel=1e-5)
        torch.testing.assert_close(ours.double(), naive, atol=1e-5, rtol=1e-5)


def test_labels_are_of_the_nearest_centroid_and_distances_squared() -> None:
    x_nd, centroids_kd = points(), points(CLUSTERS)
    labels_n, distances_n = clusters.nearest(x_nd, centroids_kd)
    all_nk = torch.cdist(x_nd.double(), centroids_kd.double()) ** 2
    torch.testing.assert_close(distances_n.double(), all_nk.min(1).values, rtol=1e-5, atol=1e-5)
    assert torch.equal(labels_n, all_nk.argmin(1))


def test_the_same_seed_gives_the_same_clusters_and_another_one_others() -> None:
    x_nd = points()
    assert torch.equal(kmeans(x_nd, 1).centroids_kd, kmeans(x_nd, 1).centroids_kd)
    assert not torch.equal(kmeans(x_nd, 1).centroids_kd, kmeans(x_nd, 2).centroids_kd)


def test_it_stops_where_a_pass_gains_next_to_nothing() -> None:
    x_nd = points(2000)
    found = kmeans(x_nd, 1)
    assert 2 <= len(found.inertias) < clusters.MOST_PASSES
    better_kd, inertia = clusters.improved(x_nd, found.centroids_kd)
    _, after = clusters.improved(x_nd, better_kd)
    assert 0 <= inertia - after < 10 * clusters.LEAST_GAIN * inertia


def test_clusters_begin_at_different_rows_far_from_each_other() -> None:
    """Of heaps far apart each has one, though one of them has nearly all rows."""
    heaps_kd = 1000 * torch.eye(CLUSTERS)
    heap_n = torch.cat([torch.zeros(500, dtype=torch.long), torch.arange(1, CLUSTERS)])
    x_nd = heaps_kd[heap_n] + 0.01 * torch.randn(len(heap_n), CLUSTERS)
    begin_kd = clusters.beginnings(x_nd, CLUSTERS, np.random.default_rng(3))
    assert sorted(begin_kd.argmax(1).tolist()) == list(range(CLUSTERS))
    assert all((x_nd == row).all(1).any() for row in begin_kd)


def test_a_cluster_of_nothing_begins_anew_at_the_farthest_row() -> None:
    x_nd = torch.cat([torch.randn(50, 3), torch.tensor([[40.0, 0.0, 0.0]])])
    centroids_kd = torch.cat([torch.zeros(1, 3), torch.full((1, 3), -1e4)])
    better_kd, _ = clusters.improved(x_nd, centroids_kd)
    torch.testing.assert_close(better_kd, torch.stack([x_nd.mean(0), x_nd[-1]]))


def test_fewer_different_frames_than_clusters_are_refused() -> None:
    x_nd = torch.randn(3, 4).repeat(50, 1)
    with pytest.raises(LightasrError, match=r"objective\.clusters: 7, .* only 3 different ones"):
        kmeans(x_nd, 1)


# --- what is clustered, and what is left of it ----------------------------------------------------


def test_features_side_by_side_are_the_utterances_own() -> None:
    """Zeros where the last frame lacks some, whatever stands in the padding."""
    x_btf = torch.randn(2, 10, 3)
    x_btf[1, 7:] = math.nan
    found = stacked(x_btf, torch.tensor([10, 7]), 4)
    assert found.shape == (2, 3, 12)
    assert torch.equal(found[0, 1], x_btf[0, 4:8].flatten())
    assert torch.equal(found[1, 1], torch.cat([x_btf[1, 4:7].flatten(), torch.zeros(3)]))
    assert torch.equal(found[1, 2], torch.zeros(12))


def test_clusters_are_found_in_so_many_hours_drawn_by_seed() -> None:
    utterances: list[Any] = [_Lasting(3 + i % 5) for i in range(100)]
    some = draw(utterances, 60, np.random.default_rng(1))
    assert 60 - 7 < sum(each.seconds for each in some) <= 60
    assert some == draw(utterances, 60, np.random.default_rng(1))
    assert some != draw(utterances, 60, np.random.default_rng(2))
    assert draw(utterances, 1e9, np.random.default_rng(1)) == utterances
    assert len(draw(utterances, 0.1, np.random.default_rng(1))) == 1


class _Lasting:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


def written(folder: Path, **labels: list[int]) -> FrameLabels:
    made = Labelled({name: np.array(own, np.int16) for name, own in labels.items()}, 0.0)
    clusters.write_labels(made.labels, folder / clusters.LABELS)
    return FrameLabels(folder)


def test_labels_come_back_by_utterance_with_zeros_in_the_padding(tmp_path: Path) -> None:
    labels = written(tmp_path, b=[3, 1, 32766], a=[5], c=[])
    found = labels.batch(["a", "b", "c"], torch.tensor([1, 3, 0]), 4)
    assert found.dtype == torch.int64
    assert found.tolist() == [[5, 0, 0, 0], [3, 1, 32766, 0], [0, 0, 0, 0]]
    assert not labels.batch([], torch.tensor([0]), 4).any(), "a process without a part in a step"


def test_labels_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    labels = written(tmp_path, a=[5, 6])
    with pytest.raises(LightasrError, match=r"labels\.npz: no labels of 'x'"):
        labels.batch(["x"], torch.tensor([1]), 1)
    with pytest.raises(LightasrError, match=r"'a' has 2 labels, but .* makes 3 frames"):
        labels.batch(["a"], torch.tensor([3]), 3)
    for damage in (b"PK\x03\x04 cut short", b""):
        (tmp_path / clusters.LABELS).write_bytes(damage)
        with pytest.raises(LightasrError, match=r"labels\.npz: not labels of frames"):
            FrameLabels(tmp_path)


def test_perplexity_counts_clusters_of_equal_size() -> None:
    sizes = torch.tensor([[3.0, 3.0, 3.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(perplexity(sizes), torch.tensor([3.0, 1.0]))


# --- the objective ------------------------------------------------------------------------------


def objective(**keys: Any) -> Hubert:
    config = COMPONENTS["objective"]["hubert"].model_validate(
        {"name": "hubert", "clusters": CLUSTERS, "code_dim": 6, **keys}
    )
    assert isinstance(config, Clustered)
    return Hubert(config, Sizes(6, 4, CHANNELS, DIM))  # type: ignore[arg-type]


def test_the_loss_is_of_hidden_frames_and_cosines_over_the_temperature() -> None:
    hubert = objective(temperature=0.3).eval()
    y_btd = torch.randn(2, 9, DIM, requires_grad=True)
    hidden_bt, labels_bt = torch.rand(2, 9) < 0.5, torch.randint(CLUSTERS, (2, 9))
    views = Views(torch.empty(0), torch.empty(0), torch.empty(0), torch.empty(0), labels_bt)
    nats, tally = hubert.loss(y_btd, hubert.targets(views, hidden_bt), hidden_bt)
    expected, right, guesses_v = torch.zeros(()), 0, torch.zeros(CLUSTERS)
    for b, t in hidden_bt.nonzero().tolist():
        y_c = hubert.tell(y_btd[b, t])
        cosines_v = torch.cosine_similarity(y_c[None], hubert.codes_vc, dim=-1)
        p_v = (cosines_v / 0.3).softmax(0)
        expected = expected - p_v[labels_bt[b, t]].log()
        right += int(p_v.argmax() == labels_bt[b, t])
        guesses_v = guesses_v + p_v.detach()
    torch.testing.assert_close(nats, expected)
    (gradient_btd,) = torch.autograd.grad(nats, y_btd)
    assert (gradient_btd.abs().sum(-1) > 0).equal(hidden_bt)
    assert (tally.frames, tally.right) == (hidden_bt.sum(), right)
    assert torch.equal(tally.codes_gv[0], torch.bincount(labels_bt[hidden_bt], minlength=CLUSTERS))
    torch.testing.assert_close(tally.guesses_gv[0], guesses_v)


def test_in_place_of_hidden_frames_is_one_learnt_vector() -> None:
    hubert = objective()
    frames_btd, hidden_bt = torch.randn(2, 9, CHANNELS), torch.rand(2, 9) < 0.5
    found = hubert.hide_frames(frames_btd, hidden_bt)
    assert torch.equal(found[~hidden_bt], frames_btd[~hidden_bt])
    assert (found[hidden_bt] == hubert.mask_d).all()
    found.sum().backward()
    torch.testing.assert_close(hubert.mask_d.grad, hidden_bt.sum().float().expand(CHANNELS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_of_whole_precision(dtype: torch.dtype) -> None:
    """The encoder's outputs are in 16 bits; what they are compared with is not."""
    hubert = objective()
    hidden_bt = torch.rand(2, 9) < 0.5
    y_btd, targets = torch.randn(2, 9, DIM), torch.randint(CLUSTERS, (int(hidden_bt.sum()),))
    hubert.tell = torch.nn.Linear(DIM, 6).to(dtype).requires_grad_(False)
    y_btd = y_btd.to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        nats, _ = hubert.loss(y_btd, targets, hidden_bt)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, hubert.loss(y_btd, targets, hidden_bt)[0], rtol=1e-5, atol=0)


# --- the whole model ----------------------------------------------------------------------------


def pretraining(encoder: str = "transformer") -> PretrainingModel:
    config = PretrainSlice.model_validate(
        {
            "features": {"mels": 8},
            "normalize": "utterance",
            "frontend": {"name": "conv2d", "channels": [4, 4], "norm": "none"},
            "encoder": {"name": encoder, "dim": 16, "layers": 2, "dropout": 0.0},
            "objective": {"name": "hubert", "clusters": CLUSTERS, "code_dim": 4},
            "train": {},
            "collapse": {},
            "dev": "dev-clean",
        },
        strict=False,
    )
    return PretrainingModel(config)


@pytest.mark.parametrize("encoder", ["transformer", "ds2", "convnext"])
def test_a_batch_mate_changes_neither_loss_nor_outputs(
    encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pretraining(encoder).eval()
    frames = torch.arange(40) % 3 == 0
    monkeypatch.setattr(
        model.objective,
        "hidden",
        lambda lengths_b, size: masks.valid_mask(lengths_b, size) & frames[:size],
    )
    short_tf, long_tf = torch.randn(37, 8), torch.randn(90, 8)
    labels_bt = torch.randint(CLUSTERS, (2, 23))
    alone = model(short_tf[None], torch.tensor([37]), labels_bt[:1, :10])
    both_btf = torch.full((2, 90, 8), 1e4)
    both_btf[0, :37], both_btf[1] = short_tf, long_tf
    together = model(both_btf, torch.tensor([37, 90]), labels_bt)
    other = model(long_tf[None], torch.tensor([90]), labels_bt[1:])
    torch.testing.assert_close(together.nats, alone.nats + other.nats)
    torch.testing.assert_close(together.y_btd[:1, :10], alone.y_btd, atol=1e-5, rtol=1e-4)


def test_a_batch_of_nothing_has_no_loss_and_a_gradient_for_every_weight() -> None:
    """A process that has no part in a step takes part in the sum of gradients."""
    model = pretraining()
    nothing = torch.zeros(1, dtype=torch.long)
    learnt = model(torch.randn(1, 30, 8), nothing, torch.zeros(1, 8, dtype=torch.long))
    learnt.nats.backward()
    assert learnt.nats.item() == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
