"""Stage `train`: it learns, and going on after a stop gives the very same weights."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from lightasr import schema
from lightasr.data.batches import Batch, Utterance
from lightasr.data.cuts import CUTS
from lightasr.errors import LightasrError, RetryError
from lightasr.invalid import Layer, check
from lightasr.models.trained import Trained
from lightasr.train import loop
from lightasr.train.corpus import TrainingCorpus
from lightasr.train.loop import Trainer, stopping_on_signals
from lightasr.train.validate import DevResult

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
        "model": {"frontend": {"name": "conv2d", "channels": [4, 4]}, "encoder": ENCODERS[encoder]},
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
    results = [DevResult(1.0, wer, wer) for wer in wers]
    seen: list[dict[str, torch.Tensor]] = []

    def fake_validate() -> DevResult:
        seen.append(weights(trainer))
        return results[len(seen) - 1] if len(seen) <= 3 else DevResult(1.0, *after.pop(0))

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


def test_letters_may_select_the_weights(tone_inputs: dict[str, Path], tmp_path: Path) -> None:
    for select in ("wer", "cer"):
        work = work_folder(tmp_path, select)
        result = Trainer(slices(select=select), tone_inputs, work).validate()
        assert isinstance(result, DevResult)
        assert result.dev_wer != result.dev_cer
        assert result.rank == getattr(result, f"dev_{select}")
        assert list(result.shown) == [select.upper()]


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
    assert trainer.corpus.set_aside["longer than train.max_seconds"] > 0
    assert all(utterance.seconds <= 2 for utterance in trainer.corpus.utterances)
    with pytest.raises(LightasrError, match="no utterance of 40 can be trained on"):
        Trainer(slices(max_seconds=0.1), tone_inputs, work_folder(tmp_path, "none"))


def test_utterances_too_short_for_their_transcript_are_told_once(
    tone_inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A letter lasts twelve frames; CTC needs one for each, and one more between equal letters."""
    config = slices(epochs=1, average=0)
    tree = config.model_dump(mode="json")
    tree["model"]["frontend"] = {"name": "conv2d", "channels": [4, 4], "time_strides": [3, 4]}
    config = check(schema.TrainSlice, tree, [Layer("test", None, tree)])
    trainer = Trainer(config, tone_inputs, work_folder(tmp_path, "work"))
    aside = trainer.corpus.set_aside["too short for their transcript"]
    assert 0 < aside < 40
    trainer.fit()
    assert trainer.at.skipped == 0
    told = f"{aside} utterances set aside: too short for their transcript"
    assert capsys.readouterr().err.count(told) == 1


def rewritten(
    inputs: dict[str, Path], folder: Path, texts: list[str], part: str = ""
) -> dict[str, Path]:
    """The same inputs, but other transcripts of the first utterances of each part, or of one."""
    changed = dict(inputs)
    for name, path in inputs.items():
        if name.startswith(f"features/{part}"):
            changed[name] = folder / path.name
            shutil.copytree(path, changed[name])
            lines = gzip.decompress((path / CUTS).read_bytes()).splitlines()
            for i, text in enumerate(texts):
                cut = json.loads(lines[i])
                cut["supervisions"][0]["text"] = text
                lines[i] = json.dumps(cut).encode()
            (changed[name] / CUTS).write_bytes(gzip.compress(b"\n".join(lines)))
    return changed


def test_what_the_tokenizer_cannot_write_is_not_trained_on_but_decoded(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    """It has a word error rate in the dev part, but no loss."""
    inputs = rewritten(tone_inputs, tmp_path, ["CAFÉ", "?!", "ÉTÉ"], "train-clean-100")
    inputs |= rewritten(inputs, tmp_path, ["FÜNF"], "dev-clean")
    trainer = Trainer(slices(epochs=1, average=0), inputs, work_folder(tmp_path, "work"))
    assert trainer.corpus.set_aside == {
        "characters outside the alphabet": 2,
        "nothing left of their transcript": 1,
        "characters outside the alphabet (dev part, from the loss alone)": 1,
    }
    assert len(trainer.corpus.utterances) == 40 - 3
    assert trainer.corpus.dev[0].text == "FÜNF"
    result = trainer.validate()
    assert 0 < result.dev_loss < 100
    assert result.dev_wer > 0


def test_a_dev_part_without_any_loss_is_refused(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    inputs = rewritten(tone_inputs, tmp_path, ["ÉTÉ"] * 8, "dev-clean")
    with pytest.raises(LightasrError, match="no utterance of 8 of the dev part has a loss: 8 char"):
        Trainer(slices(), inputs, work_folder(tmp_path, "work"))


def test_a_model_normalised_by_speaker_is_trained_and_used_with_speakers_statistics(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    tree = slices(epochs=1, average=0).model_dump(mode="json")
    tree["model"]["normalize"] = "speaker"
    config = check(schema.TrainSlice, tree, [Layer("test", None, tree)])
    trainer = Trainer(config, tone_inputs, work_folder(tmp_path, "work"))
    trainer.fit()
    dev = trainer.corpus.dev
    assert {utterance.speaker for utterance in dev} == {"5"}
    whole = torch.cat([trainer.corpus.store.load(utterance) for utterance in dev])
    torch.testing.assert_close(whole.mean(0), torch.zeros(16), atol=0.02, rtol=0)
    torch.testing.assert_close(whole.std(0), torch.ones(16), atol=0.02, rtol=0)

    trained = Trained(config, trainer.model.eval(), trainer.corpus.tokenizer, trainer.device)
    (utterance, logp_tv), *_ = trained.score_utterances(dev, batch_seconds=60)
    alone = trainer.corpus.store.collate([utterance])
    expected, _ = trained.log_probs(alone.features_btf, alone.lengths_b)
    torch.testing.assert_close(logp_tv, expected[0], atol=1e-4, rtol=0)


def poison(trainer: Trainer, utterance: str | None = None) -> None:
    """Make the features of one utterance (of all, if None) something that is no number."""
    load = trainer.corpus.store.load

    def poisoned(asked: Utterance) -> torch.Tensor:
        features = load(asked)
        return torch.full_like(features, torch.nan) if utterance in {None, asked.id} else features

    trainer.corpus.store.load = poisoned  # type: ignore[method-assign]


def test_a_bad_step_is_skipped_and_counted_and_leaves_no_trace(
    tone_inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(slices(epochs=1, average=0), tone_inputs, work_folder(tmp_path, "work"))
    bad = trainer.corpus.utterances[3].id
    poison(trainer, bad)
    trainer.fit()
    assert trainer.at.skipped == 1
    assert all(value.isfinite().all() for value in weights(trainer).values())
    assert "skipped: loss nan" in capsys.readouterr().err


def test_patience_ends_with_the_utterances_and_the_batch(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    work = work_folder(tmp_path, "work")
    trainer = Trainer(slices(patience=3), tone_inputs, work)
    poison(trainer)
    with pytest.raises(LightasrError, match=r"3 steps in a row is no number .*utterances \d-1-"):
        trainer.fit()
    assert torch.load(work / "bad-batch.pt")["features"].isnan().any()


def test_a_run_that_diverges_is_stopped(
    tone_inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(slices(diverged=0.5), tone_inputs, work_folder(tmp_path, "work"))
    update = trainer.update

    def worse(batches: list[Batch], loss: float, norm: float) -> None:
        update(batches, loss + trainer.at.epoch * 3, norm)

    monkeypatch.setattr(trainer, "update", worse)
    with pytest.raises(LightasrError, match=r"diverged: the loss of epoch \d is .* train.lr"):
        trainer.fit()


def test_out_of_memory_names_the_utterance_and_what_to_lower(
    tone_inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(slices(), tone_inputs, work_folder(tmp_path, "work"))

    def full(batch: Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "loss", full)
    message = r"the longest \d-1-\d{4} of \d\.\d s: lower train.batch_seconds \(6\)"
    with pytest.raises(LightasrError, match=message):
        trainer.fit()
    assert trainer.at.step == 0, "the worst batch comes first"


def test_the_rehearsal_leaves_no_trace(tone_inputs: dict[str, Path], tmp_path: Path) -> None:
    trainer = Trainer(slices(), tone_inputs, work_folder(tmp_path, "work"))
    before, drawn = weights(trainer), torch.get_rng_state()
    trainer.rehearse()
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())
    assert all(p.grad is None for p in trainer.model.parameters())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_bf16_trains_and_keeps_weights_and_statistics_in_fp32(
    encoder: str, tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    trainer = Trainer(
        slices(encoder, precision="bf16", epochs=6), tone_inputs, work_folder(tmp_path, "work")
    )
    trainer.fit()
    assert {value.dtype for value in weights(trainer).values()} == {torch.float32}
    losses = [row["train_loss"] for row in trainer.at.curves]
    assert losses[-1] < losses[0]
    batch = trainer.corpus.store.read(trainer.corpus.utterances, [0, 1])
    with trainer.precision.autocast():
        encoded, lengths = trainer.model.frontend(batch.features_btf, batch.lengths_b)
        assert trainer.model.encoder(encoded, lengths)[0].isfinite().all()
        log_probs, _ = trainer.model(batch.features_btf, batch.lengths_b)
    assert log_probs.dtype == torch.float32


def test_fp16_answers_an_overflow_with_a_lower_scale_and_skips_the_step(
    tone_inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(slices(precision="fp16"), tone_inputs, work_folder(tmp_path, "work"))
    trainer.precision.scaler = GradScaler("cpu", init_scale=64.0)
    backward = trainer.precision.backward
    before: dict[str, torch.Tensor] = {}

    def overflowing(loss: torch.Tensor) -> None:
        backward(loss)
        if trainer.at.step == 2 and not before:
            before.update(weights(trainer))
            next(trainer.model.parameters()).grad[0] = torch.inf  # type: ignore[index]

    monkeypatch.setattr(trainer.precision, "backward", overflowing)
    with pytest.raises(RetryError):
        trainer.fit(stop_at=3)
    statistics = {name for name, _ in trainer.model.named_buffers()}
    for name, value in weights(trainer).items():
        if name not in statistics:
            assert torch.equal(value, before[name]), "the step changed nothing"
    assert trainer.at.scales == [[3, 32.0]]
    assert trainer.at.skipped == 1


@pytest.mark.parametrize("accumulate", [1, 3])
def test_one_two_and_four_processes_share_the_same_batches(
    accumulate: int, tone_inputs: dict[str, Path]
) -> None:
    """The same steps for all, each utterance of a batch in one part of one process."""
    corpus = TrainingCorpus(slices(accumulate=accumulate), tone_inputs)

    def team(size: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(size=size, rank=rank) for rank in range(size)]

    alone = corpus.plan(1, team(1)[0])
    whole = [sorted(i for part in step.parts for i in part) for step in alone]
    for size in (2, 4):
        plans = [corpus.plan(1, member) for member in team(size)]
        assert {len(plan) for plan in plans} == {len(alone)}
        for number, steps in enumerate(zip(*plans, strict=True)):
            assert {len(step.parts) for step in steps} == {accumulate}
            assert {step.symbols for step in steps} == {alone[number].symbols}
            shared = sorted(i for step in steps for part in step.parts for i in part)
            assert shared == whole[number]


def test_sortagrad_goes_from_short_to_long_in_its_first_epoch_only(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    trainer = Trainer(slices(order="sortagrad"), tone_inputs, work_folder(tmp_path, "work"))

    def longest(epoch: int) -> list[float]:
        steps = trainer.corpus.plan(epoch, trainer.team)
        return [max(trainer.corpus.utterances[i].seconds for i in step.parts[0]) for step in steps]

    assert longest(0) == sorted(longest(0))
    assert longest(1) != sorted(longest(1))


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(
    tone_inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = work_folder(tmp_path, "work")
    for stop in (4, 9):
        with pytest.raises(RetryError):
            Trainer(slices(), tone_inputs, work).fit(stop_at=stop)
    (work / "last.pt").write_bytes((work / "last.pt").read_bytes()[:-999])
    trainer = Trainer(slices(), tone_inputs, work)
    trainer.resume()
    assert trainer.at.step == 4
    assert "last.pt: damaged checkpoint" in capsys.readouterr().err


def test_the_seed_decides_the_weights(tone_inputs: dict[str, Path], tmp_path: Path) -> None:
    def after_three_steps(seed: int, name: str) -> dict[str, torch.Tensor]:
        trainer = Trainer(slices(seed=seed), tone_inputs, work_folder(tmp_path, name))
        with pytest.raises(RetryError):
            trainer.fit(stop_at=3)
        return weights(trainer)

    first, same, other = (after_three_steps(seed, f"{i}") for i, seed in enumerate((1, 1, 2)))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())
