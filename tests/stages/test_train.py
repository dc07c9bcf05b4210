"""Stage `train`: it learns, and going on after a stop gives the very same weights."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest
import torch

from lightasr import schema
from lightasr.errors import LightasrError, RetryError
from lightasr.invalid import Layer
from lightasr.plan import check
from lightasr.train import loop
from lightasr.train.loop import Trainer, stopping_on_signals

ENCODERS = {
    "lstm": {"name": "ds2", "unit": "lstm", "dim": 16, "layers": 2},
    "ligru": {"name": "ds2", "unit": "ligru", "dim": 16, "layers": 2},
    "transformer": {"name": "transformer", "dim": 16, "layers": 2, "feedforward": 32},
}


def slices(encoder: str = "ligru", **train: object) -> schema.TrainSlice:
    """A tiny model with everything random switched on."""
    tree = {
        "features": {"mels": 16},
        "tokenizer": {},
        "model": {"frontend": {"channels": [4, 4]}, "encoder": ENCODERS[encoder]},
        "train": {"epochs": 4, "batch_seconds": 6, "average": 2, "lr": 5e-3, **train},
        "dev": "dev-clean",
    }
    return check(schema.TrainSlice, tree, [Layer("test", None, tree)])


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def work_folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


@pytest.mark.parametrize("encoder", ENCODERS)
def test_twenty_steps_are_ten_and_ten_more(
    encoder: str, tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Bit for bit, with dropout and SpecAugment, stopped in the middle of an epoch."""
    config = slices(encoder)
    at_once = Trainer(config, tone_inputs, work_folder(tmp_path, "at-once"))
    with pytest.raises(RetryError):
        at_once.fit(stop_at=20)
    work = work_folder(tmp_path, "in-two")
    for stop in (10, 20):
        torch.rand(stop)  # what was drawn before must not matter
        in_two = Trainer(config, tone_inputs, work)
        with pytest.raises(RetryError):
            in_two.fit(stop_at=stop)
        assert in_two.at.position > 0, "the test must stop within an epoch"
    for name, value in weights(at_once).items():
        assert torch.equal(value, weights(in_two)[name]), name
    assert in_two.at.loss_sum == at_once.at.loss_sum


def test_a_whole_run_in_pieces_leaves_the_same_files(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    config = slices()
    whole, pieces = work_folder(tmp_path, "whole"), work_folder(tmp_path, "pieces")
    out_whole, out_pieces = work_folder(tmp_path, "a"), work_folder(tmp_path, "b")
    extras = loop.run(config, tone_inputs, out_whole, whole)
    for stop in (3, 11, 12, 25):
        with pytest.raises(RetryError):
            Trainer(config, tone_inputs, pieces).fit(stop_at=stop)
    extras_pieces = loop.run(config, tone_inputs, out_pieces, pieces)
    model = "model.safetensors"
    assert (out_whole / model).read_bytes() == (out_pieces / model).read_bytes()
    assert extras["selected"] == extras_pieces["selected"]
    timed = {"seconds"}
    for a, b in zip(curves(out_whole), curves(out_pieces), strict=True):
        assert {k: v for k, v in a.items() if k not in timed} == {
            k: v for k, v in b.items() if k not in timed
        }


def curves(out: Path) -> list[dict[str, str]]:
    with (out / "curves.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_it_learns_to_read_tones(
    encoder: str, tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    config = slices(encoder, epochs=30, lr=1e-2, augment={"time_masks": 0, "mel_masks": 0})
    out = work_folder(tmp_path, "out")
    extras = loop.run(config, tone_inputs, out, work_folder(tmp_path, "work"))
    losses = [float(row["train_loss"]) for row in curves(out)]
    assert losses[-1] < 0.5 * losses[0]
    assert extras["dev_cer"] < 0.4
    assert extras["params"] > 0
    assert extras["steps"] == int(curves(out)[-1]["step"])


def test_the_best_epoch_is_kept_when_the_average_is_worse(
    tone_inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(slices(epochs=3, average=2), tone_inputs, work_folder(tmp_path, "work"))
    wers = iter([0.5, 0.2, 0.3])
    results = [loop.DevResult(1.0, wer, wer) for wer in wers]
    seen: list[dict[str, torch.Tensor]] = []

    def fake_validate() -> loop.DevResult:
        seen.append(weights(trainer))
        return results[len(seen) - 1] if len(seen) <= 3 else loop.DevResult(1.0, *after.pop(0))

    after = [(0.2, 0.2), (0.25, 0.25)]
    monkeypatch.setattr(trainer, "validate", fake_validate)
    trainer.fit()
    selected, result = trainer.select()
    assert (selected, result.dev_wer) == ("epoch 2", 0.2)
    for name, value in weights(trainer).items():
        assert torch.equal(value, seen[1][name])
    after = [(0.2, 0.2), (0.1, 0.1)]
    selected, result = trainer.select()
    assert (selected, result.dev_wer) == ("mean of epochs 2 to 3", 0.1)
    for name, value in weights(trainer).items():
        torch.testing.assert_close(value, (seen[1][name] + seen[2][name]) / 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_asks_for_a_retry(
    number: signal.Signals, tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    work = work_folder(tmp_path, "work")
    trainer = Trainer(slices(), tone_inputs, work)
    train_step = trainer.train_step

    def step_with_signal(*arguments: object) -> float:
        if trainer.at.step == 4:
            signal.raise_signal(number)
        return train_step(*arguments)

    trainer.train_step = step_with_signal  # type: ignore[method-assign]
    before = signal.getsignal(number)
    with (
        pytest.raises(RetryError, match=f"saved at step 5 .{number.name}.") as raised,
        stopping_on_signals(trainer),
    ):
        trainer.fit()
    assert raised.value.exit_code == 75
    assert signal.getsignal(number) is before
    again = Trainer(slices(), tone_inputs, work)
    again.resume()
    assert again.at.step == 5


def test_a_checkpoint_of_other_settings_is_refused(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    work = work_folder(tmp_path, "work")
    with pytest.raises(RetryError):
        Trainer(slices(), tone_inputs, work).fit(stop_at=2)
    with pytest.raises(LightasrError, match=r"last\.pt: made by another experiment"):
        Trainer(slices(lr=1e-4), tone_inputs, work).fit()


def test_utterances_that_cannot_be_trained_on_are_set_aside_and_counted(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    config = slices(max_seconds=2.0, epochs=1, average=0)
    trainer = Trainer(config, tone_inputs, work_folder(tmp_path, "work"))
    assert trainer.set_aside["longer than train.max_seconds"] > 0
    assert all(utterance.seconds <= 2 for utterance in trainer.utterances)
    with pytest.raises(LightasrError, match="no utterance of 40 can be trained on"):
        Trainer(slices(max_seconds=0.1), tone_inputs, work_folder(tmp_path, "none"))


def test_a_loss_that_is_no_number_stops_with_the_utterances(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    trainer = Trainer(slices(), tone_inputs, work_folder(tmp_path, "work"))
    with torch.no_grad():
        trainer.model.head.project.bias.fill_(float("nan"))
    with pytest.raises(LightasrError, match=r"the loss is nan at step 1 with utterances \d-1-"):
        trainer.fit()


def test_the_seed_decides_the_weights(tone_inputs: dict[str, Path], tmp_path: Path) -> None:
    def after_three_steps(seed: int, name: str) -> dict[str, torch.Tensor]:
        trainer = Trainer(slices(seed=seed), tone_inputs, work_folder(tmp_path, name))
        with pytest.raises(RetryError):
            trainer.fit(stop_at=3)
        return weights(trainer)

    first, same, other = (after_three_steps(seed, f"{i}") for i, seed in enumerate((1, 1, 2)))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())
