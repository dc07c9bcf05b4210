"""Stage `pretrain`, and what a recogniser makes of it: learnt without labels, frozen, in layers."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_train import slices as train_slices
from test_train import weights, work_folder
from test_train_processes import train
from torch import Tensor

from lightasr import schema
from lightasr.errors import LightasrError, RetryError
from lightasr.invalid import Layer, check
from lightasr.models.trained import load_trained
from lightasr.train import loop, pretraining
from lightasr.train.loop import Trainer
from lightasr.train.pretraining import DevMasked, Pretraining, Spread

ENCODERS = {
    "transformer": {"name": "transformer", "dim": 16, "layers": 2, "feedforward": 32},
    "ligru": {"name": "ds2", "unit": "ligru", "dim": 16, "layers": 2},
    "chunks": {"name": "transformer", "dim": 16, "mixer": "conv", "streaming": {"chunk": 4}},
}
FRONTEND = {"name": "conv2d", "channels": [4, 4]}


def slices(named: str = "transformer", /, **keys: Any) -> schema.PretrainSlice:
    """A tiny model."""
    settings = {"epochs": 4, "batch_seconds": 12, "lr": 5e-3, **keys.pop("train", {})}
    tree = schema.spelt_out(
        {
            "features": {"mels": 16},
            "normalize": "global",
            "frontend": FRONTEND,
            "encoder": ENCODERS[named],
            "objective": {"name": "bestrq", "codes": 16, "code_dim": 4},
            "train": settings,
            "collapse": {"codes": 1.0, "guesses": 1.0, "rank": 1.0, "gain": -9.0},
            "dev": "dev-clean",
            **keys,
        }
    )
    return check(schema.PretrainSlice, tree, [Layer("test", None, tree)])


@pytest.fixture(scope="session")
def speech(tone_inputs: dict[str, Path]) -> dict[str, Path]:
    """What stage `pretrain` reads."""
    return {name: path for name, path in tone_inputs.items() if name.startswith("features/")}


@pytest.fixture(scope="session")
def pretrained(speech: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pretraining."""
    root = tmp_path_factory.mktemp("pretrained")
    (root / "work").mkdir()
    out = root / "out"
    out.mkdir()
    pretraining.run(slices(), speech, out, root / "work")
    return out


# --- learning without labels --------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODERS)
def test_twelve_steps_are_seven_and_five_more(
    encoder: str, speech: dict[str, Path], tmp_path: Path
) -> None:
    """Bit for bit, whatever was hidden."""
    config = slices(encoder)
    at_once = Trainer(config, speech, work_folder(tmp_path, "at-once"), task=Pretraining)
    with pytest.raises(RetryError):
        at_once.fit(stop_at=12)
    work = work_folder(tmp_path, "in-two")
    for stop in (7, 12):
        torch.rand(stop)  # what was drawn before must not matter
        in_two = Trainer(config, speech, work, task=Pretraining)
        with pytest.raises(RetryError):
            in_two.fit(stop_at=stop)
    for name, value in weights(at_once).items():
        assert torch.equal(value, weights(in_two)[name]), name


def test_it_learns_what_is_hidden(speech: dict[str, Path], tmp_path: Path) -> None:
    """A tone lasts three frames: those beside a frame tell more than how frequent codes are."""
    out = work_folder(tmp_path, "out")
    config = slices(
        train={"epochs": 40, "batch_seconds": 6},
        encoder={**ENCODERS["transformer"], "dim": 32, "dropout": 0.0},
        objective={"name": "bestrq", "codes": 16, "code_dim": 8, "probability": 0.2, "span": 2},
    )
    found = pretraining.run(config, speech, out, work_folder(tmp_path, "work"))
    with (out / "curves.csv").open() as stream:
        curves = list(csv.DictReader(stream))
    assert found["dev_loss"] < math.log(found["dev_codes"]) - 0.1
    assert float(curves[-1]["train_loss"]) < float(curves[0]["train_loss"]) - 0.3
    assert found["dev_accuracy"] > float(curves[0]["dev_accuracy"]) + 0.05
    assert 1 < found["dev_guesses"] <= 16
    assert 1 < found["dev_rank"] <= 32
    assert found["audio_seconds_per_second"] > 0


def test_what_is_hidden_on_dev_is_the_same_each_time_and_leaves_no_trace(
    speech: dict[str, Path], tmp_path: Path
) -> None:
    trainer = Trainer(slices(), speech, work_folder(tmp_path, "work"), task=Pretraining)
    before = torch.get_rng_state()
    first = trainer.validate()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(7)
    assert trainer.validate() == first


@pytest.mark.parametrize("key", ["codes", "guesses", "rank", "gain"])
def test_a_collapse_ends_the_run_with_its_sign(
    key: str, speech: dict[str, Path], tmp_path: Path
) -> None:
    bounds = {"codes": 1.0, "guesses": 1.0, "rank": 1.0, "gain": -9.0, key: 1000.0}
    trainer = Trainer(
        slices(collapse=bounds), speech, work_folder(tmp_path, "work"), task=Pretraining
    )
    with pytest.raises(
        LightasrError, match=rf"collapsed: .* below pretrain\.collapse\.{key} \(1000"
    ):
        trainer.fit()
    assert trainer.at.epoch == (1 if key == "gain" else 0), "after the first epoch, or half of all"


def collapsing(tmp_path: Path, speech: dict[str, Path], **bounds: float) -> Pretraining:
    config = slices(collapse={"codes": 1.0, "guesses": 1.0, "rank": 1.0, "gain": -9.0, **bounds})
    return Trainer(config, speech, work_folder(tmp_path, "work"), task=Pretraining).task


def test_an_early_collapse_is_forgiven_but_never_selected(
    speech: dict[str, Path], tmp_path: Path
) -> None:
    """Where all codes are one, telling them costs nothing, and no later epoch would be better."""
    task = collapsing(tmp_path, speech, codes=2.0)
    result = DevMasked(0.0, 1.0, dev_codes=1.0, dev_guesses=4.0, dev_rank=5.0, dev_gain=0.0)
    task.done = 0.09
    assert asdict(task.watched(result)) == asdict(result)
    assert task.watched(result).rank == math.inf
    task.done = 0.1
    with pytest.raises(LightasrError, match=r"collapsed: .* 1 .* below pretrain\.collapse\.codes"):
        task.watched(result)


def test_an_encoder_that_says_nothing_is_a_collapse(
    speech: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guesses may be as varied as the codes, and noise has a rank."""
    task = collapsing(tmp_path, speech, gain=0.0)

    def blindly(x_btd: Tensor, lengths_b: Tensor) -> tuple[Tensor, Tensor]:
        return 1 + 1e-5 * torch.randn_like(x_btd), lengths_b

    monkeypatch.setattr(task.model.encoder, "forward", blindly)
    task.done = 0.4
    found = task.validate()
    assert (found.dev_guesses > 2, found.dev_rank > 5) == (True, True)
    assert found.dev_gain < 0
    task.done = 0.5
    with pytest.raises(LightasrError, match=r"below pretrain\.collapse\.gain \(0\)"):
        task.validate()


def test_what_ended_in_collapse_is_not_published_by_a_rerun(
    speech: dict[str, Path], tmp_path: Path
) -> None:
    """All epochs are done then, and no step tells how far the training is."""
    config, work = slices(), work_folder(tmp_path, "work")
    Trainer(config, speech, work, task=Pretraining).fit()
    again = Trainer(config, speech, work, task=Pretraining)
    again.fit()
    again.select()
    assert again.task.done == 1.0


def test_outputs_that_are_no_numbers_have_no_rank() -> None:
    spread = Spread(4, torch.device("cpu"))
    spread.add(torch.full((1, 3, 4), torch.nan), torch.tensor([3]))
    assert math.isnan(spread.rank())


def test_the_effective_rank_counts_directions() -> None:
    for directions in (1, 3, 8):
        spread = Spread(8, torch.device("cpu"))
        basis_rd = torch.linalg.qr(torch.randn(8, directions)).Q.T
        y_btd = torch.randn(4, 5000, directions) @ basis_rd + 3
        spread.add(y_btd, torch.tensor([5000, 5000, 5000, 0]))
        assert spread.rank() == pytest.approx(directions, rel=0.01)


def test_two_processes_learn_one_model_and_go_on_bit_for_bit(
    speech: dict[str, Path], tmp_path: Path
) -> None:
    settings = {"config": slices().model_dump(mode="json"), "pretrain": True}
    whole = train(2, tmp_path, "whole", speech, **settings, stop_at=9)
    train(2, tmp_path, "pieces", speech, **settings, stop_at=5)
    pieces = train(2, tmp_path, "pieces", speech, **settings, stop_at=9)
    for name, weight in whole[0]["model"].items():
        torch.testing.assert_close(weight, whole[1]["model"][name], msg=name)
        assert torch.equal(weight, pieces[0]["model"][name]), name


def test_parts_of_silence_are_told(speech: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match="there is no utterance to learn from"):
        Trainer(
            slices(train={"max_seconds": 0.01}),
            speech,
            work_folder(tmp_path, "work"),
            task=Pretraining,
        )


# --- fine-tuning --------------------------------------------------------------------------------


def finetuning(
    tone_inputs: dict[str, Path],
    pretrained: Path,
    work: Path,
    head: str = "linear",
    finetune: dict[str, Any] | None = None,
    **train_keys: Any,
) -> Trainer:
    tree = train_slices("transformer", **train_keys).model_dump(mode="json")
    tree["finetune"] = finetune or {}
    tree["model"]["frontend"] |= FRONTEND
    tree["model"]["head"] = {"name": head}
    config = check(schema.TrainSlice, tree, [Layer("test", None, tree)])
    return Trainer(config, {**tone_inputs, "pretrain": pretrained}, work)


def changed(trainer: Trainer, steps: int) -> set[str]:
    """Parts of the model of which a weight, or a statistic, is another one after so many steps."""
    before = weights(trainer)
    with pytest.raises(RetryError):
        trainer.fit(stop_at=steps)
    after = weights(trainer)
    return {n.partition(".")[0] for n in before if not torch.equal(before[n], after[n])}


def test_a_recogniser_begins_with_what_was_learnt_and_a_fresh_head(
    tone_inputs: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    trainer = finetuning(tone_inputs, pretrained, work_folder(tmp_path, "work"))
    learnt = load_file(pretrained / "model.safetensors")
    own = weights(trainer)
    shared = {name for name in own if not name.startswith("head.")}
    assert shared == {n for n in learnt if not n.startswith("objective.")}
    assert "normalizer.mean" in shared, "its moments, too"
    for name in shared:
        assert torch.equal(own[name], learnt[name]), name
    assert changed(trainer, 3) == {"frontend", "encoder", "head"}


@pytest.mark.parametrize(
    ("frozen", "learns"), [("frontend", {"encoder", "head"}), ("all", {"head"})]
)
def test_what_is_frozen_gets_no_gradient_and_stays(
    frozen: str,
    learns: set[str],
    tone_inputs: dict[str, Path],
    pretrained: Path,
    tmp_path: Path,
) -> None:
    work = work_folder(tmp_path, "work")
    trainer = finetuning(tone_inputs, pretrained, work, finetune={"frozen": frozen})
    assert changed(trainer, 3) == learns
    for name, parameter in trainer.model.named_parameters():
        assert parameter.requires_grad == (name.partition(".")[0] in learns), name


def test_the_head_learns_alone_for_so_many_steps(
    tone_inputs: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    for steps, learns in ((4, {"head"}), (5, {"frontend", "encoder", "head"})):
        work = work_folder(tmp_path, str(steps))
        trainer = finetuning(tone_inputs, pretrained, work, finetune={"frozen_steps": 4})
        assert changed(trainer, steps) == learns


def test_a_lower_layer_learns_more_slowly(
    tone_inputs: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    work = work_folder(tmp_path, "work")
    trainer = finetuning(
        tone_inputs, pretrained, work, finetune={"layer_decay": 0.5}, schedule="constant", warmup=0
    )
    changed(trainer, 1)
    rates = {}
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    for group in trainer.optimizer.param_groups:
        rates |= {names[id(parameter)]: group["lr"] for parameter in group["params"]}
    assert rates["head.project.weight"] == pytest.approx(5e-3)
    assert rates["encoder.blocks.1.mixer_norm.weight"] == pytest.approx(5e-3 / 2)
    assert rates["encoder.blocks.0.mixer_norm.weight"] == pytest.approx(5e-3 / 4)
    assert rates["encoder.project.weight"] == pytest.approx(5e-3 / 8)
    assert rates["frontend.blocks.0.conv.weight"] == pytest.approx(5e-3 / 8)


def test_fine_tuning_goes_on_bit_for_bit(
    tone_inputs: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    settings = {"finetune": {"frozen_steps": 5, "layer_decay": 0.7}}
    at_once = finetuning(tone_inputs, pretrained, work_folder(tmp_path, "once"), **settings)
    changed(at_once, 12)
    work = work_folder(tmp_path, "in-two")
    for stop in (3, 12):
        in_two = finetuning(tone_inputs, pretrained, work, **settings)
        changed(in_two, stop)
    for name, value in weights(at_once).items():
        assert torch.equal(value, weights(in_two)[name]), name


def test_a_weighted_sum_of_frozen_layers_is_trained_and_used(
    tone_inputs: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    """The whole stage; its directory alone is enough to load it."""
    tree = train_slices("transformer").model_dump(mode="json")
    tree["finetune"] = {"frozen": "all"}
    tree["model"]["frontend"] |= FRONTEND
    tree["model"]["head"] = {"name": "layer_sum"}
    config = check(schema.TrainSlice, tree, [Layer("test", None, tree)])
    out = work_folder(tmp_path, "out")
    inputs = {**tone_inputs, "pretrain": pretrained}
    loop.run(config, inputs, out, work_folder(tmp_path, "work"))
    (out / "config.json").write_text(json.dumps(tree))
    (out / "run.json").write_text("{}")
    model = load_trained(out).model
    weight_l = model.get_parameter("head.weight_l")
    assert len(weight_l) == 2
    assert weight_l.abs().max() > 0
    logp_btv, _ = model(torch.randn(1, 40, 16), torch.tensor([40]))
    torch.testing.assert_close(logp_btv.exp().sum(-1), torch.ones(1, 10))


def test_weights_of_another_model_are_refused(
    tone_inputs: dict[str, Path], pretrained: Path, tmp_path: Path
) -> None:
    tree = train_slices("ligru").model_dump(mode="json")
    tree["finetune"] = {}
    config = check(schema.TrainSlice, tree, [Layer("test", None, tree)])
    inputs = {**tone_inputs, "pretrain": pretrained}
    with pytest.raises(LightasrError, match=r"model\.safetensors: not of this model's encoder"):
        Trainer(config, inputs, work_folder(tmp_path, "work"))
