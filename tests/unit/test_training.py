"""The pieces of training: schedule, masks, loss, checkpoints."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightasr.errors import LightasrError
from lightasr.objectives.ctc import ctc_loss
from lightasr.schema import SpecAugment, Train
from lightasr.train import checkpoint
from lightasr.train.augment import SpecMasks
from lightasr.train.schedule import learning_rate, make_optimizer


@pytest.mark.parametrize("schedule", ["cosine", "linear", "noam", "constant"])
def test_learning_rate_rises_to_its_peak_and_never_beyond(schedule: str) -> None:
    config = Train(lr=0.5, warmup=0.2, schedule=schedule)
    rates = [learning_rate(config, done / 1000) for done in range(1, 1001)]
    assert rates[:200] == pytest.approx([0.5 * i / 200 for i in range(1, 201)])
    assert max(rates) == pytest.approx(0.5)
    assert rates[200:] == sorted(rates[200:], reverse=True)


def test_schedules_end_where_they_should() -> None:
    ends = {
        schedule: learning_rate(Train(lr=1.0, warmup=0.25, schedule=schedule), 1.0)
        for schedule in ("cosine", "linear", "noam", "constant")
    }
    assert ends == pytest.approx({"cosine": 0, "linear": 0, "noam": 0.5, "constant": 1})


def test_weight_decay_leaves_biases_and_norms_alone() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    decayed, others = make_optimizer(Train(weight_decay=0.1), model).param_groups
    assert [p.shape for p in decayed["params"]] == [(4, 3)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert len(others["params"]) == 3


def test_masks_hide_within_the_utterance_and_within_their_bounds() -> None:
    torch.manual_seed(0)
    config = SpecAugment(time_masks=1, time_width=5, time_share=0.2, mel_masks=1, mel_width=3)
    lengths = torch.tensor([40, 10])
    hidden_frames, hidden_bands = set(), set()
    for _ in range(200):
        hidden = SpecMasks(config)(torch.ones(2, 40, 8), lengths) == 0
        frames, bands = hidden.all(dim=2).sum(1), hidden.all(dim=1).sum(1)
        hidden_frames |= {("long", int(frames[0])), ("short", int(frames[1]))}
        hidden_bands |= set(bands.tolist())
        assert not hidden[1, 10:].all(dim=1).any()
    assert max(n for name, n in hidden_frames if name == "long") == 5
    assert max(n for name, n in hidden_frames if name == "short") == 2, "a fifth of ten frames"
    assert hidden_bands == {0, 1, 2, 3}


def test_utterances_of_a_batch_get_masks_of_their_own() -> None:
    torch.manual_seed(0)
    masked = SpecMasks(SpecAugment())(torch.ones(8, 200, 40), torch.full((8,), 200))
    assert len({x.numpy().tobytes() for x in masked}) == 8


def test_no_masks_change_nothing() -> None:
    x = torch.randn(2, 30, 8)
    off = SpecMasks(SpecAugment(time_masks=0, mel_masks=0))
    assert torch.equal(off(x, torch.tensor([30, 20])), x)


def test_ctc_is_the_sum_of_its_utterances() -> None:
    logp = torch.randn(2, 12, 5).log_softmax(-1)
    targets, target_lengths = torch.tensor([[1, 2, 2], [3, 0, 0]]), torch.tensor([3, 1])
    lengths = torch.tensor([12, 7])
    singles = [
        F.ctc_loss(logp[i, :n, None], targets[i : i + 1, :m], (n,), (m,), reduction="sum")
        for i, (n, m) in enumerate([(12, 3), (7, 1)])
    ]
    expected = singles[0] + singles[1]
    torch.testing.assert_close(ctc_loss(logp, lengths, targets, target_lengths), expected)


def test_random_states_come_back(tmp_path: Path) -> None:
    state = checkpoint.random_state()
    checkpoint.save(tmp_path / "state.pt", {"random": state})

    def draw() -> tuple[float, float, list[float]]:
        return random.random(), float(np.random.rand()), torch.rand(3).tolist()  # noqa: NPY002

    first = draw()
    checkpoint.restore_random_state(checkpoint.load(tmp_path / "state.pt")["random"])
    assert draw() == first


class Malicious:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_a_checkpoint_never_runs_code(tmp_path: Path, write: Callable[..., None]) -> None:
    with (tmp_path / "last.pt").open("wb") as stream:
        write({"identity": "x", "model": Malicious(tmp_path / "ran")}, stream)
    with pytest.raises(LightasrError, match=r"last\.pt: damaged checkpoint"):
        checkpoint.load(tmp_path / "last.pt", "x")
    assert not (tmp_path / "ran").exists()


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"identity": "x", "model": {"w": torch.randn(1000)}})
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(LightasrError, match=r"last\.pt: damaged checkpoint.*delete it"):
        checkpoint.load(path, "x")


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last.pt", {"identity": "aaaa"})
    with pytest.raises(LightasrError, match="made by another experiment"):
        checkpoint.load(tmp_path / "last.pt", "bbbb")


def test_an_interrupted_save_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"identity": "x", "step": 1})

    def full_disk(state: object, stream: BinaryIO) -> None:
        stream.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"identity": "x", "step": 2})
    assert checkpoint.load(path, "x")["step"] == 1
