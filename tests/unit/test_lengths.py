"""What models cost as utterances grow: what is counted, how it grows, what the stage writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightasr.cost import lengths
from lightasr.cost.lengths import Lengths, Subject, WholeUtterances, exponent
from lightasr.cost.macs import count_macs
from lightasr.cost.timing import kept_bytes
from lightasr.models.encoders import ds2, transformer
from lightasr.models.encoders.ds2 import DeepSpeech2
from lightasr.models.frames import Frames
from lightasr.plan import Plan, load_plan
from lightasr.planner import measured_digest, measured_model
from lightasr.schema import MeasuredModel
from lightasr.stage import execute
from planning import write_study

FRAMES, INPUTS, DIM = 5, 8, 16
CPU = torch.device("cpu")
ROWS = {
    "mhsa": {"model": {"encoder": {"name": "transformer"}}},
    "ligru": {"model": {"encoder": {"name": "ds2", "unit": "ligru"}}},
    "slow": {"model": {"encoder": {"name": "ds2", "unit": "ligru"}}, "train": {"lr": 0.5}},
}


@pytest.fixture
def plan(project: Path) -> Plan:
    """A study of two tiny models, one of which has two rows."""
    write_study(project, experiments=ROWS, columns=["train_step", "params", "saved_exp"])
    return load_plan(project, "smoke", ["mine"])


@pytest.fixture
def models(plan: Plan) -> dict[str, MeasuredModel]:
    return {e.name: measured_model(e.config) for e in plan.experiments if e.name != "slow"}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call a sample, one second to count."""
    monkeypatch.setattr(lengths, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(lengths, "COUNTED_SECONDS", 1)


# --- products -----------------------------------------------------------------------------------


def test_a_linear_layer_multiplies_each_frame_by_its_matrix() -> None:
    assert count_macs(nn.Linear(INPUTS, DIM), torch.randn(2, FRAMES, INPUTS)) == 2 * FRAMES * 8 * 16


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_torchs_recurrences_count_the_products_of_input_and_state(
    kind: Callable[..., nn.Module], gates: int
) -> None:
    layer = kind(INPUTS, DIM, batch_first=True)
    assert count_macs(layer, torch.randn(1, FRAMES, INPUTS)) == FRAMES * gates * 16 * (8 + 16)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("unit", "gates"),
    [("lstm", 4), ("gru", 3), ("ligru", 2), ("mgu", 2), ("rnn", 1), ("qligru", 2), ("qlstm", 4)],
)
def test_a_unit_counts_its_gates_in_each_direction(unit: str, gates: int, directions: int) -> None:
    """A quaternion unit counts as its block matrix, by which it multiplies."""
    config = {"name": "ds2", "unit": unit, "dim": DIM, "layers": 1}
    model = DeepSpeech2(
        ds2.Config.model_validate({**config, "bidirectional": directions == 2}), INPUTS
    )
    x_btd, lengths_b = torch.randn(1, FRAMES, INPUTS), torch.tensor([FRAMES])
    assert count_macs(model, x_btd, lengths_b) == directions * FRAMES * gates * 16 * (8 + 16)
    layer = model.layers[0]
    assert getattr(layer, "kernel", "auto") == "auto"  # the model itself stays as it was


def test_a_transformer_block_counts_projections_attention_and_feed_forward() -> None:
    config = transformer.Config.model_validate(
        {"name": "transformer", "dim": DIM, "feedforward": 24, "mixer": {"name": "mhsa"}}
    )

    class OneBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = transformer.Block(config)

        def forward(self, x_btd: Tensor) -> Tensor:
            return self.block(x_btd, Frames(torch.ones(x_btd.shape[:2], dtype=torch.bool)))

    projections, feedforward = 4 * 16 * 16, 2 * 16 * 24
    attention = 2 * FRAMES * 16  # Q K^T and its product with V, all heads
    macs = FRAMES * (projections + attention + feedforward)
    assert count_macs(OneBlock(), torch.randn(1, FRAMES, DIM)) == macs


@pytest.mark.parametrize(
    ("transform", "share"),
    [
        (lambda x: torch.fft.fft(x.to(torch.complex64)), 1.0),
        (torch.fft.rfft, 0.5),
        (lambda x: torch.fft.irfft(x[..., :9].to(torch.complex64), n=16), 0.5),
    ],
)
def test_a_fourier_transform_counts_as_is_the_custom(
    transform: Callable[[Tensor], Tensor], share: float
) -> None:
    class Transform(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return transform(x)

    assert count_macs(Transform(), torch.randn(3, 16)) == share * 3 * 2.5 * 16 * 4


# --- growth -------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_is_the_power_of_the_length(power: float) -> None:
    assert exponent({t: 3.0 * t**power for t in (20, 40, 80)}) == pytest.approx(power)


def test_what_lies_between_two_powers_has_an_exponent_between() -> None:
    assert 1.4 < exponent({t: t + t**2 / 40 for t in (20, 40, 80)}) < 1.6


def test_a_figure_is_of_the_middle_the_last_but_one_or_the_last_three_lengths() -> None:
    assert Lengths.of((5, 10, 20, 40, 80)) == (20, 40, (20, 40, 80))
    assert Lengths.of((1, 2, 4)) == (2, 2, (1, 2, 4))


# --- measuring ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_all_models_are_measured_in_turns(
    models: dict[str, MeasuredModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sample = lengths.Passes.sample

    def noted(passes: lengths.Passes) -> None:
        order.append(passes.subject.name)
        sample(passes)

    monkeypatch.setattr(lengths.Passes, "sample", noted)
    lengths.measure(models, CPU, (1, 2), 2, "measure")
    assert order == list(models) * 2 * 2


@pytest.mark.usefixtures("short")
def test_a_models_size_is_that_of_its_parameters_and_buffers(
    models: dict[str, MeasuredModel],
) -> None:
    subject = Subject("mhsa", models["mhsa"], CPU)
    numbers = [*subject.model.parameters(), *subject.model.buffers()]
    assert subject.parameters == sum(p.numel() for p in subject.model.parameters())
    assert 0 < subject.file_bytes - sum(4 * n.numel() for n in numbers) < 20_000  # its header


@pytest.mark.usefixtures("short")
def test_what_a_recurrence_saves_grows_with_the_frames(models: dict[str, MeasuredModel]) -> None:
    subject = Subject("ligru", models["ligru"], CPU)
    kept = [kept_bytes(subject.model.train(), subject.utterance(s)) for s in (2, 4, 8)]
    assert kept[2] - kept[1] == pytest.approx(2 * (kept[1] - kept[0]), rel=0.02)


def test_an_utterance_has_the_frames_and_log_probabilities_of_its_length(
    models: dict[str, MeasuredModel],
) -> None:
    subject = Subject("mhsa", models["mhsa"], CPU)
    assert isinstance(subject.model, WholeUtterances)
    x_btf = subject.utterance(2)
    assert x_btf.shape == (1, 200, models["mhsa"].features.dim)
    logp_btv = subject.model(x_btf)
    assert logp_btv.shape[2] == lengths.LETTERS
    torch.testing.assert_close(logp_btv.exp().sum(-1), torch.ones(logp_btv.shape[:2]))


@pytest.mark.usefixtures("short")
def test_a_training_step_has_the_precision_of_the_training(
    models: dict[str, MeasuredModel],
) -> None:
    """Of half as many bytes what is saved grows less with the length; norms stay in fp32."""
    half = models["mhsa"].model_copy(update={"precision": "bf16"})
    growth = []
    for model in (models["mhsa"], half):
        subject = Subject("mhsa", model, CPU)
        short, long = (lengths.Passes(subject, seconds).saved for seconds in (2, 8))
        growth.append(long - short)
    assert growth[1] < 0.85 * growth[0]


# --- the stage ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_steps_of_pretrainings_are_measured_for_columns_that_ask(project: Path) -> None:
    """Beside the models; equal ones once, however often clusters are found."""
    hubert = {"name": "hubert", "clusters": 20}
    rows = {
        "scratch": {},
        "bestrq": {"pretrain": {"objective": {"name": "bestrq", "codes": 16}}},
        "hubert": {"pretrain": {"objective": hubert | {"iterations": 1}}},
        "hubert_twice": {"pretrain": {"objective": hubert | {"iterations": 2}}},
    }
    base = {"model": {"encoder": {"name": "transformer"}}}
    for columns, count in ((["train_step"], None), (["train_step", "pretrain_step"], 2)):
        write_study(project, base=base, experiments=rows, columns=columns)
        plan = load_plan(project, "smoke", ["mine"])
        (job,) = plan.of_stage("measure")
        assert len(job.config["models"]) == 1
        assert ("pretrainings" in job.config) == (count is not None)
    execute(plan, job)
    costs = json.loads((plan.project / job.dir / "costs.json").read_text())
    assert len(costs["models"]) == 1
    assert len(costs["pretrainings"]) == count
    for figures in costs["pretrainings"].values():
        assert figures["train_ms"] > 0
        assert figures["saved_mb"] > 0
        assert "rtfx" not in figures, "nobody infers with it"


@pytest.mark.usefixtures("short")
def test_the_stage_writes_the_figures_of_each_model_once(plan: Plan) -> None:
    (job,) = plan.of_stage("measure")
    threads = torch.get_num_threads()
    execute(plan, job)
    assert torch.get_num_threads() == threads
    assert json.loads((plan.project / job.receipt).read_text())["device"] == "cpu"
    costs = json.loads((plan.project / job.dir / "costs.json").read_text())
    mhsa, ligru, slow = (measured_digest(measured_model(e.config)) for e in plan.experiments)
    assert ligru == slow
    assert list(costs["models"]) == [mhsa, ligru]
    assert costs["lengths"] == {"speed": 2, "training": 2, "growth": [1, 2, 4]}
    assert [(p["model"], p["seconds"]) for p in costs["points"]] == [
        (model, seconds) for seconds in (1, 2, 4) for model in (mhsa, ligru)
    ]
    at = {(p["model"], p["seconds"]): p for p in costs["points"]}
    assert all(p["forward_ms"] > 0 and p["train_ms"] > 0 for p in costs["points"])
    figures = costs["models"][ligru]
    assert figures["train_ms"] == at[ligru, 2]["train_ms"]
    assert figures["rtfx"] == 2000 / at[ligru, 2]["forward_ms"]
    assert figures["saved_exp"] == exponent({t: at[ligru, t]["saved_mb"] for t in (1, 2, 4)})
    assert "peak_mb" not in figures  # nobody can measure it without a GPU
