"""`lightasr bench kernels`: which cases, what a row says, and what is left out."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from lightasr import cli
from lightasr.bench import kernels
from lightasr.bench.kernels import LSTM, Case, Impl, OurLayer
from lightasr.errors import LightasrError
from lightasr.models.encoders import ds2

TINY = Case(batch=2, steps=5, inputs=6, states=8)
CPU = torch.device("cpu")
ALL_IMPLS = kernels.IMPLS


def tiny(impl: Impl, case: Case = TINY) -> Tensor:
    """States of a layer for an input of its own layout."""
    layer = impl.build(case)
    shape = (case.batch, case.steps) if layer.batch_first else (case.steps, case.batch)
    states = layer(torch.randn(*shape, case.inputs))
    return states.transpose(0, 1) if layer.batch_first else states


def some_impls(*names: str) -> tuple[Impl, ...]:
    return tuple(impl for impl in ALL_IMPLS if impl.name in names)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three layers, one call a sample, a small machine."""
    monkeypatch.setattr(kernels, "IMPLS", some_impls(LSTM, "ligru-reference", "sligru-reference"))
    monkeypatch.setattr(kernels, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(kernels, "PRODUCT_SIZE", {"cpu": 64})
    monkeypatch.setattr(kernels, "COPY_BYTES", {"cpu": 4096})


# --- cases --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("full", [False, True])
def test_every_choice_has_the_case_that_others_are_known_for(
    device: kernels.Device, full: bool
) -> None:
    names = [case.name for case in kernels.choose_cases(device, None, full)]
    assert "B16 T400 I512 H512 uni fp32" in names
    assert len(names) == len(set(names))


def test_the_grid_goes_over_batch_steps_states_and_directions() -> None:
    found = {
        (case.batch, case.steps, case.states, case.directions)
        for case in kernels.choose_cases("cpu", None, full=True)
    }
    assert {
        (batch, steps, states, directions)
        for batch in (1, 8, 16, 64)
        for steps in (100, 400, 1600)
        for states in (256, 512, 1024)
        for directions in (1, 2)
    } <= found


def test_a_part_of_the_name_picks_cases() -> None:
    (case,) = kernels.choose_cases("cpu", "B16 T400", full=False)
    assert case.name == "B16 T400 I512 H512 uni fp32"
    both = kernels.choose_cases("cpu", "B64 T1600 I256", full=True)
    assert [case.directions for case in both] == [1, 2]


def test_a_case_of_the_grid_asks_for_full() -> None:
    with pytest.raises(LightasrError, match="in the grid only, add --full"):
        kernels.choose_cases("cpu", "B64 T1600", full=False)


def test_an_unknown_case_is_refused_with_the_nearest() -> None:
    with pytest.raises(LightasrError, match="did you mean 'B16 T400 I512 H512 uni fp32'"):
        kernels.choose_cases("cpu", "B16 T401 I512 H512 uni fp32", full=True)


# --- layers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("name", [LSTM, "nn.GRU", "nn.RNN", "ligru-reference", "sligru-reference"])
def test_a_layer_gives_the_states_of_each_direction(name: str, directions: int) -> None:
    case = Case(2, 5, 6, 8, directions)
    assert tiny(*some_impls(name), case).shape == (5, 2, directions * 8)


@pytest.mark.skipif(
    importlib.util.find_spec("speechbrain") is None, reason="speechbrain is not installed"
)
@pytest.mark.parametrize("name", ["speechbrain-ligru", "speechbrain-sligru"])
def test_speechbrains_layers_are_jitted(name: str) -> None:
    (impl,) = some_impls(name)
    assert isinstance(impl.build(TINY).rnn, torch.jit.ScriptModule)
    assert tiny(impl).shape == (5, 2, 8)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("unit", kernels.UNITS)
def test_every_other_unit_of_the_encoder_is_there(unit: str, directions: int) -> None:
    (impl,) = some_impls(unit)
    states = 6 if unit == "parallel_lstm" else 8  # it needs threes
    assert tiny(impl, Case(2, 5, 8, 8, directions)).shape == (5, 2, directions * states)
    assert set(get_args(ds2.Config.model_fields["unit"].annotation)) == {
        *kernels.UNITS,
        *kernels.GATES,
    }


def test_the_products_alone_are_those_of_a_light_gru() -> None:
    (impl,) = some_impls("ligru-products")
    layer = impl.build(TINY)
    x_tbi = torch.randn(5, 2, 6)
    layer.states.data.normal_()
    expected = layer.product(x_tbi).view(10, 16) + layer.states[0] @ layer.weight_dhg[0]
    torch.testing.assert_close(layer(x_tbi)[0], expected)


def test_units_that_nothing_is_claimed_of_wait_for_short_cases_or_the_grid() -> None:
    (short, long) = (Case(16, steps, 8, 8) for steps in (kernels.SHORT, 400))
    impls = some_impls(LSTM, "img")
    assert [len(kernels.measured_at(case, impls, full=False)) for case in (short, long)] == [2, 1]
    assert len(kernels.measured_at(long, impls, full=True)) == 2


def test_our_second_direction_starts_at_the_last_frame() -> None:
    both = OurLayer("ligru", "reference", Case(2, 5, 6, 8, directions=2))
    forth = OurLayer("ligru", "reference", TINY)
    forth.product.weight.data = both.product.weight.data[16:]
    forth.weight_dhg.data = both.weight_dhg.data[1:]
    x_tbi = torch.randn(5, 2, 6)
    torch.testing.assert_close(both(x_tbi)[..., 8:], forth(x_tbi.flip(0)).flip(0))


def test_what_cannot_run_is_left_out_and_each_reason_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = [
        Impl(f"{cell}-odd", cell, "odd", nn.Identity, lambda device: f"no odd on {device}")
        for cell in ("ligru", "mgu")
    ]
    monkeypatch.setattr(kernels, "IMPLS", (*some_impls(LSTM), *gone))
    assert [impl.name for impl in kernels.available(CPU)] == [LSTM]
    assert capsys.readouterr().err == "bench kernels: without ligru-odd, mgu-odd: no odd on cpu\n"


def test_on_a_processor_those_of_torch_the_reference_and_numba_are_measured() -> None:
    names = {impl.name for impl in kernels.available(CPU)}
    assert names - {"speechbrain-ligru", "speechbrain-sligru"} == {
        *(LSTM, "nn.GRU", "nn.RNN", "ligru-reference", "sligru-reference"),
        *("ligru-numba", "sligru-numba", "mgu-numba", "ligru-products", *kernels.UNITS),
    }


# --- what is measured ---------------------------------------------------------------------------


def test_kept_is_the_output_and_what_backward_needs_but_not_input_and_weights() -> None:
    layer = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3))
    x = torch.randn(4, 6, requires_grad=True)
    assert kernels.kept_bytes(layer, x) == 4 * (4 * 8 + 4 * 3)


def test_a_light_gru_takes_half_the_products_of_an_lstm() -> None:
    (lstm, ligru) = some_impls(LSTM, "ligru-reference")
    assert 2 * kernels.flops(TINY, ligru) == kernels.flops(TINY, lstm)
    forward = 2 * 2 * 5 * (6 + 8) * 4 * 8  # a multiplication and an addition, B, T, I + H, 4 H
    assert kernels.flops(TINY, lstm) == 3 * forward


def test_a_bound_counts_the_matrices_that_a_unit_has() -> None:
    (rnn, pmu) = some_impls("nn.RNN", "pmu")
    twelve = Case(2, 5, inputs=12, states=12)
    assert kernels.flops(twelve, pmu) == 1.5 * kernels.flops(twelve, rnn)


@pytest.mark.usefixtures("quick")
def test_a_row_for_each_layer_of_each_case() -> None:
    threads = torch.get_num_threads()
    cases = [TINY, Case(2, 5, 6, 16)]
    *_, (rows, machine) = kernels.measure(cases, "cpu")
    assert torch.get_num_threads() == threads
    assert [(row["case"], row["impl"]) for row in rows] == [
        (case.name, impl.name) for case in cases for impl in kernels.IMPLS
    ]
    for row in rows:
        assert list(row)[2:5] == ["forward_ms", "train_ms", "memory_mb"]
        assert all(float(row[name] or 0) > 0 for name in list(row)[2:])
    assert [row["speed_of_lstm"] for row in rows if row["impl"] == LSTM] == [1, 1]
    assert float(machine["product_gflops_fp32"] or 0) > 0

    svg = kernels.figure(cases, rows)
    assert svg is not None
    assert all(impl.name in svg for impl in kernels.IMPLS)


@pytest.mark.usefixtures("quick")
def test_all_layers_of_a_case_are_measured_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sample = kernels.Subject.sample

    def noted(subject: kernels.Subject) -> None:
        order.append(subject.impl.name)
        sample(subject)

    monkeypatch.setattr(kernels.Subject, "sample", noted)
    list(kernels.measure([TINY], "cpu"))
    assert order == [impl.name for impl in kernels.IMPLS] * kernels.REPEATS
    assert kernels.REPEATS >= 7


@pytest.mark.usefixtures("quick")
def test_a_layer_that_cannot_train_on_one_frame_is_left_out_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "IMPLS", some_impls(LSTM, "speechbrain-ligru"))
    monkeypatch.setattr(kernels, "find_spec", lambda name: True)
    *_, (rows, _) = kernels.measure([Case(1, 1, 6, 8)], "cpu")
    assert [row["impl"] for row in rows] == [LSTM]
    assert "B1 T1 I6 H8 uni fp32 without speechbrain-ligru" in capsys.readouterr().err


def test_one_size_alone_is_no_picture() -> None:
    assert kernels.figure([TINY], []) is None


# --- the command --------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_the_command_writes_rows_table_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(kernels.SELECTION, "cpu", (TINY, Case(2, 5, 6, 16)))
    out = tmp_path / "kernels.json"
    cli.bench_kernels("cpu", json_out=out)
    tree = json.loads(out.read_text())
    assert tree["machine"]["device"] == "cpu"
    assert len(tree["rows"]) == 2 * len(kernels.IMPLS)
    assert out.with_suffix(".md").read_text() == capsys.readouterr().out
    assert out.with_suffix(".svg").read_text().startswith("<svg")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_nothing_is_measured_or_written(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match="no CUDA device is here"):
        cli.bench_kernels("cuda", json_out=tmp_path / "kernels.json")
    assert not list(tmp_path.iterdir())
