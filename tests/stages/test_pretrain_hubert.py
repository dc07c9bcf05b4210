"""Stages `cluster` and `pretrain` in turn: labels of features, then of what was learnt of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lightasr import schema
from lightasr.data.batches import Batch, FeatureStore, read_utterances
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.models.asr import load_weights
from lightasr.models.pretrained import PretrainingModel
from lightasr.train import clusters, pretraining

FRONTEND = {"name": "conv2d", "channels": [4, 4]}
CLUSTERS, DIM, FACTOR, MELS = 6, 16, 4, 16


class Stages(NamedTuple):
    """Where each of four stages has left what it has made, and what two of them say."""

    inputs: dict[str, Path]
    first: Path
    learnt: Path
    second: Path
    again: Path
    told: dict[str, dict[str, Any]]


def slices() -> schema.PretrainSlice:
    tree = {
        "features": {"mels": MELS},
        "normalize": "global",
        "frontend": FRONTEND,
        "encoder": {"name": "transformer", "dim": DIM, "layers": 3, "feedforward": 32},
        "objective": {"name": "hubert", "clusters": CLUSTERS, "code_dim": 8, "span": 2},
        "train": {"epochs": 30, "batch_seconds": 12, "lr": 1e-2},
        "collapse": {"codes": 1.0, "guesses": 1.0, "rank": 1.0, "gain": -9.0},
        "dev": "dev-clean",
    }
    return check(schema.PretrainSlice, schema.spelt_out(tree), [Layer("test", None, tree)])


def cluster_slices(**keys: Any) -> schema.ClusterSlice:
    tree = {"clusters": CLUSTERS, "hours": 1.0, "seed": 1, "dev": "dev-clean", **keys}
    return check(schema.ClusterSlice, schema.spelt_out(tree), [Layer("test", None, tree)])


OF_FEATURES = {"features": {"mels": MELS}, "normalize": "global", "frontend": FRONTEND}


@pytest.fixture(scope="module")
def stages(tone_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Cluster, pretrain, cluster, pretrain: long enough to learn which tone follows which."""
    root = tmp_path_factory.mktemp("hubert")
    inputs = {name: path for name, path in tone_inputs.items() if name.startswith("features/")}
    work, told = root / "work", {}
    outs = [root / name for name in ("first", "learnt", "second", "again")]
    for folder in (work, *outs):
        folder.mkdir()
    first, learnt, second, again = outs
    told["first"] = clusters.run(cluster_slices(of=OF_FEATURES), inputs, first, work)
    told["learnt"] = pretraining.run(slices(), {**inputs, "clusters": first}, learnt, work)
    (learnt / "config.json").write_text(slices().model_dump_json())
    for path in work.iterdir():
        path.unlink()
    told["second"] = clusters.run(cluster_slices(), {**inputs, "pretrain": learnt}, second, work)
    told["again"] = pretraining.run(slices(), {**inputs, "clusters": second}, again, work)
    return Stages(inputs, first, learnt, second, again, told)


def one_batch(inputs: dict[str, Path]) -> Batch:
    """Some utterances of both parts, side by side."""
    utterances = read_utterances(list(inputs.values()), schema.Text())[::7]
    return FeatureStore().collate(utterances)


def nearest_of(directory: Path, x_nd: torch.Tensor) -> list[int]:
    centroids_kd = load_file(directory / clusters.CENTROIDS)["centroids"]
    return torch.cdist(x_nd.double(), centroids_kd.double()).argmin(-1).tolist()


def test_every_frame_of_training_and_dev_has_a_label(stages: Stages) -> None:
    utterances = read_utterances(list(stages.inputs.values()), schema.Text())
    for directory in (stages.first, stages.second):
        labels = clusters.FrameLabels(directory)
        assert set(labels.places) == {each.id for each in utterances}
        for each in utterances:
            labels.of(each.id, -(-each.frames // FACTOR))
        assert int(labels.labels_n.max()) < CLUSTERS
    trained_on = [each for each in utterances if each.directory.name.startswith("train")]
    assert stages.told["first"]["frames"] == sum(-(-each.frames // FACTOR) for each in trained_on)
    assert 1 < stages.told["first"]["perplexity"] <= CLUSTERS
    assert stages.told["first"]["peak_memory_mb"] > 0
    told = stages.told["first"]
    assert (told["gpu_seconds"] is None) == (told["device"] == "cpu")


def test_the_first_labels_are_of_normalised_features_side_by_side(stages: Stages) -> None:
    batch = one_batch(stages.inputs)
    training = stages.inputs["features/train-clean-100"]
    store = FeatureStore()
    all_tf = torch.cat(
        [store.load(each).double() for each in read_utterances([training], schema.Text())]
    )
    mean_f, std_f = all_tf.mean(0), all_tf.std(0, unbiased=False)
    labels = clusters.FrameLabels(stages.first)
    for each, x_tf, length in zip(
        batch.utterances, batch.features_btf, batch.lengths_b.tolist(), strict=True
    ):
        x_tf = (x_tf[:length].double() - mean_f) / std_f
        padded = torch.cat([x_tf, torch.zeros(-length % FACTOR, MELS)])
        x_nd = padded.reshape(-1, FACTOR * MELS)
        assert labels.of(each.id, len(x_nd)).tolist() == nearest_of(stages.first, x_nd)


def test_later_labels_are_of_the_middle_layer_with_nothing_hidden(stages: Stages) -> None:
    model = PretrainingModel(slices()).eval()
    load_weights(model, stages.learnt / "model.safetensors")
    labels, store = clusters.FrameLabels(stages.second), FeatureStore()
    same = total = 0
    for each in one_batch(stages.inputs).utterances:
        x_btf, lengths_b = store.load(each)[None], torch.tensor([each.frames])
        with torch.no_grad():
            frames_btd, frames_b = model.frontend(model.normalizer(x_btf, lengths_b), lengths_b)
            middle_btd = list(model.encoder.states(frames_btd, frames_b))[1]
        found = labels.of(each.id, int(frames_b)).tolist()
        expected = nearest_of(stages.second, middle_btd[0])
        same += sum(a == b for a, b in zip(found, expected, strict=True))
        total += len(found)
    assert same >= 0.999 * total, "alone and in a batch they are the same but for rounding"
    assert "layer 2 of 3" in stages.told["second"]["clustered"]
    assert stages.told["second"]["dim"] == DIM


def test_hidden_clusters_are_learnt(stages: Stages) -> None:
    for name in ("learnt", "again"):
        told = stages.told[name]
        assert told["dev_loss"] < 0.95 * np.log(CLUSTERS), name
        assert told["dev_accuracy"] > 1.2 / CLUSTERS, name
        assert 1 < told["dev_codes"] <= CLUSTERS, name


def test_the_same_seed_leaves_the_same_files(stages: Stages, tmp_path: Path) -> None:
    clusters.run(cluster_slices(of=OF_FEATURES), stages.inputs, tmp_path, tmp_path)
    for name in (clusters.CENTROIDS, clusters.LABELS):
        assert (tmp_path / name).read_bytes() == (stages.first / name).read_bytes(), name


def test_what_a_kill_leaves_is_gone_on_with(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pass of k-means, then in a piece of the labels; nothing that was done is done again."""
    monkeypatch.setattr(clusters, "PIECE_SECONDS", 20.0)
    calls = dict.fromkeys(("improved", "labels_of"), 0)
    killed_at: dict[str, int] = {}

    def watch(name: str) -> None:
        real = getattr(clusters, name)

        def call(*arguments: Any) -> Any:
            calls[name] += 1
            if calls[name] == killed_at.get(name):
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(clusters, name, call)

    def run(name: str) -> dict[str, Any]:
        for folder in (tmp_path / name, tmp_path / f"{name}-work"):
            folder.mkdir(exist_ok=True)
        config = cluster_slices(of=OF_FEATURES)
        told = clusters.run(config, stages.inputs, tmp_path / name, tmp_path / f"{name}-work")
        return {key: told[key] for key in told if key not in ("peak_memory_mb", "energy_joules")}

    for name in calls:
        watch(name)
    told = run("whole")
    whole = dict(calls)
    assert min(whole.values()) > 3
    calls.update(improved=0, labels_of=0)
    for name in calls:
        killed_at[name] = 3
        with pytest.raises(KeyboardInterrupt):
            run("killed")
    assert run("killed") == told
    assert calls == {name: count + 1 for name, count in whole.items()}, "the killed one once more"
    for name in (clusters.CENTROIDS, clusters.LABELS):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_layer_that_is_not_there_is_refused(stages: Stages, tmp_path: Path) -> None:
    inputs = {**stages.inputs, "pretrain": stages.learnt}
    with pytest.raises(LightasrError, match=r"objective\.layer: 4, but .* has 3 layers"):
        clusters.run(cluster_slices(layer=4), inputs, tmp_path, tmp_path)
