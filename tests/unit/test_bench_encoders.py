"""`lightasr bench encoders`: what is counted, how it grows, and what table and grid hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightasr import cli
from lightasr.bench import encoders
from lightasr.bench.encoders import Point, Shown, WholeUtterances, exponent
from lightasr.bench.macs import count_macs
from lightasr.bench.measuring import kept_bytes
from lightasr.errors import LightasrError
from lightasr.models.encoders import ds2, transformer
from lightasr.models.encoders.ds2 import DeepSpeech2
from lightasr.models.frames import Frames
from lightasr.plan import Experiment, load_plan
from planning import write_study

FRAMES, INPUTS, DIM = 5, 8, 16
ROWS = {
    "mhsa": {"model": {"encoder": {"name": "transformer"}}},
    "ligru": {"model": {"encoder": {"name": "ds2", "unit": "ligru"}}},
}


@pytest.fixture
def experiments(project: Path) -> list[Experiment]:
    """Two rows of tiny models."""
    write_study(project, "mixers", experiments=ROWS)
    return list(load_plan(project, "smoke", ["mixers"]).experiments)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call a sample, one second to count."""
    monkeypatch.setattr(encoders, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(encoders, "COUNTED_SECONDS", 1)


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


def test_the_table_is_about_the_lengths_that_its_note_says() -> None:
    shown = Shown.of(encoders.SECONDS, ["lstm", "mhsa"])
    assert (shown.speed, shown.training, shown.growth) == (20, 40, (20, 40, 80))
    assert shown.reference == "mhsa"
    assert Shown.of(encoders.SECONDS, ["lstm", "gru"]).reference == "lstm"
    for said in ("inference, at 20 s", "over that of `mhsa`, at 40 s", "at 20, 40, 80 s"):
        assert said in shown.note()


# --- measuring ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_every_encoder_is_measured_at_every_length(experiments: list[Experiment]) -> None:
    threads = torch.get_num_threads()
    found = encoders.measure(experiments, "cpu", seconds=(1, 2), rounds=1)
    assert torch.get_num_threads() == threads
    assert [(p.experiment, p.seconds) for p in found.points] == [
        (name, seconds) for seconds in (1, 2) for name in ROWS
    ]
    assert all(p.forward_ms > 0 and p.train_ms > 0 and p.saved_mb > 0 for p in found.points)
    assert [row["experiment"] for row in found.rows] == list(ROWS)
    of = {(p.experiment, p.seconds): p for p in found.points}
    row = found.rows[1]
    assert row["train_of_mhsa"] == of["ligru", 1].train_ms / of["mhsa", 1].train_ms
    assert row["rtfx"] == 2000 / of["ligru", 2].forward_ms
    assert row["saved_mb"] == of["ligru", 1].saved_mb
    assert "peak_mb" not in row  # nobody can measure it without a GPU

    svg = encoders.figure(found.points)
    assert all(name in svg for name in ROWS)


@pytest.mark.usefixtures("short")
def test_all_encoders_are_measured_in_turns(
    experiments: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sample = encoders.Passes.sample

    def noted(passes: encoders.Passes) -> None:
        order.append(passes.subject.name)
        sample(passes)

    monkeypatch.setattr(encoders.Passes, "sample", noted)
    encoders.measure(experiments, "cpu", seconds=(1, 2), rounds=2)
    assert order == list(ROWS) * 2 * 2


@pytest.mark.usefixtures("short")
def test_a_models_size_is_that_of_its_parameters_and_buffers(
    experiments: list[Experiment],
) -> None:
    subject = encoders.Subject(experiments[0], torch.device("cpu"))
    numbers = [*subject.model.parameters(), *subject.model.buffers()]
    assert subject.parameters == sum(p.numel() for p in subject.model.parameters())
    assert 0 < subject.file_bytes - sum(4 * n.numel() for n in numbers) < 20_000  # its header


@pytest.mark.usefixtures("short")
def test_what_a_recurrence_saves_grows_with_the_frames(experiments: list[Experiment]) -> None:
    subject = encoders.Subject(experiments[1], torch.device("cpu"))
    kept = [kept_bytes(subject.model.train(), subject.utterance(s)) for s in (2, 4, 8)]
    assert kept[2] - kept[1] == pytest.approx(2 * (kept[1] - kept[0]), rel=0.02)


def test_an_utterance_has_the_frames_and_log_probabilities_of_its_length(
    experiments: list[Experiment],
) -> None:
    subject = encoders.Subject(experiments[0], torch.device("cpu"))
    assert isinstance(subject.model, WholeUtterances)
    x_btf = subject.utterance(2)
    assert x_btf.shape == (1, 200, experiments[0].config.features.dim)
    logp_btv = subject.model(x_btf)
    assert logp_btv.shape[2] == encoders.LETTERS
    torch.testing.assert_close(logp_btv.exp().sum(-1), torch.ones(logp_btv.shape[:2]))


# --- the command --------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_the_command_writes_rows_grid_table_and_picture(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(project, "mixers", experiments=ROWS)
    monkeypatch.chdir(project)
    points = [Point(name, t, t, 3.0 * t, t, None) for t in (5, 10) for name in ROWS]
    measured: dict[str, object] = {}

    def measure(experiments: list[Experiment], on: str) -> encoders.Found:
        measured.update(names=[e.name for e in experiments], on=on)
        return encoders.Found([{"experiment": "mhsa"}], points, {"device": on}, "What it means.")

    monkeypatch.setattr(encoders, "measure", measure)
    cli.bench_encoders(scale="smoke")
    assert measured == {"names": list(ROWS), "on": "cpu"}
    out = project / "results" / "bench" / "encoders-cpu.json"
    tree = json.loads(out.read_text())
    assert (tree["machine"]["study"], tree["machine"]["scale"]) == ("mixers", "smoke")
    assert tree["rows"] == [{"experiment": "mhsa"}]
    assert tree["grid"][3] == {
        **{"experiment": "ligru", "seconds": 10, "forward_ms": 10, "train_ms": 30.0},
        **{"saved_mb": 10, "peak_mb": None, "rtfx": 1000.0},
    }
    table = out.with_suffix(".md").read_text()
    assert table == capsys.readouterr().out
    assert "What it means." in table
    assert out.with_suffix(".svg").read_text().startswith("<svg")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_nothing_is_measured_or_written(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(project, "mixers", experiments=ROWS)
    monkeypatch.chdir(project)
    with pytest.raises(LightasrError, match="bench encoders: no CUDA device is here"):
        cli.bench_encoders("cuda", scale="smoke")
    assert not (project / "results").exists()
