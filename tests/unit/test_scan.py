"""Kernels of the recurrences: whatever the shape, they are the reference, forward and backward."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightasr.errors import LightasrError
from lightasr.kernels import cpu, cpu_tile, reference
from lightasr.kernels.scan import REFERENCE, scan

CELLS = sorted(cpu.CELLS)
SHAPES = [(1, 1, 1, 1), (5, 1, 3, 7), (9, 2, 16, 33), (6, 2, 1, 64), (7, 1, 25, 17), (40, 1, 8, 40)]


def problem(
    cell: str,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    masked: bool = False,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gates, weights, initial states that are not zero, and a dropout mask."""
    steps, directions, batch, size = shape
    random = torch.Generator().manual_seed(seed)

    gates = size if cell.startswith("rnn") else 2 * size

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=random, dtype=dtype).requires_grad_()

    mask = (torch.rand(directions, batch, size, generator=random) > 0.3).to(dtype) / 0.7
    return (
        normal(steps, directions, batch, gates),
        (normal(directions, size, gates) / size**0.5).detach().requires_grad_(),
        normal(directions, batch, size),
        mask if masked else None,
    )


def run(cell: str, kernel: str, case: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> list[Tensor]:
    """States, and the gradients of gates, weights and initial states."""
    *inputs, mask = case
    states = scan(cell, *inputs, mask, kernel=kernel)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((states * weights.to(states.dtype)).sum(), inputs)
    return [states.detach(), *gradients]


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "dropout"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_the_cpu_kernel_is_the_reference(
    cell: str, shape: tuple[int, int, int, int], dtype: torch.dtype, masked: bool
) -> None:
    case = problem(cell, shape, dtype, masked)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    for ours, expected in zip(run(cell, "numba", case), run(cell, "reference", case), strict=True):
        torch.testing.assert_close(ours, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kernel", ["numba", "reference"])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_finite_differences(cell: str, kernel: str) -> None:
    *inputs, mask = problem(cell, (4, 2, 3, 5), torch.float64, masked=True)
    assert torch.autograd.gradcheck(lambda *x: scan(cell, *x, mask, kernel=kernel), inputs)


@pytest.mark.parametrize("cell", CELLS)
def test_the_number_of_threads_changes_nothing(cell: str) -> None:
    case = problem(cell, (6, 2, 13, 20), torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(run(cell, "numba", case)[0])
    finally:
        torch.set_num_threads(before)
    for states in found[1:]:
        torch.testing.assert_close(states, found[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_shows(cell: str, value: float) -> None:
    gates, weight, h0, _ = problem(cell, (6, 1, 2, 4), torch.float32)
    gates = gates.detach().clone()
    gates[2, 0, 0] = value
    with torch.no_grad():
        ours = scan(cell, gates, weight, h0, kernel="numba")
        expected = scan(cell, gates, weight, h0, kernel="reference")
    torch.testing.assert_close(ours, expected, equal_nan=True, atol=1e-5, rtol=1e-5)
    assert ours[:, :, 1].isfinite().all(), "batch mates are not touched"


def test_light_gru_states_may_grow_and_stabilised_ones_stay_bounded() -> None:
    steps, size = 3000, 32
    gates, weight, h0, _ = problem("ligru", (steps, 1, 2, size), torch.float32)
    weight = weight.detach() * 4
    with torch.no_grad():
        light = scan("ligru", gates, weight, h0, kernel="numba")
        stable = scan("sligru", gates, weight, h0, kernel="numba")
    bound = gates.max() + (2 * size) ** 0.5  # LN's outputs have that length at most
    assert stable.abs().max() <= max(bound, h0.abs().max())
    assert not light[-1].abs().max() <= stable.abs().max()


@given(
    rows=st.sampled_from([1, 2, 4, 8]),
    blocks=st.integers(1, 3),
    depth=st.integers(1, 40),
    columns=st.integers(1, 90),
    double=st.booleans(),
)
def test_tiles_make_a_matrix_product(
    rows: int, blocks: int, depth: int, columns: int, double: bool
) -> None:
    random = np.random.default_rng(depth)
    dtype = np.float64 if double else np.float32
    x = random.standard_normal((rows * blocks, depth)).astype(dtype)
    matrix = random.standard_normal((depth, columns)).astype(dtype)
    panels = cpu_tile.pack(matrix, rows)
    out = np.full((len(x), panels.shape[0] * panels.shape[2]), np.nan, dtype)
    cpu_tile.product(x, panels, out, rows)
    np.testing.assert_allclose(out[:, :columns], x @ matrix, rtol=1e-4, atol=1e-4)
    assert not out[:, columns:].any()


@given(directions=st.integers(1, 2), batch=st.integers(1, 70), threads=st.integers(1, 9))
def test_every_row_is_one_threads(directions: int, batch: int, threads: int) -> None:
    _, parts = cpu.shares(directions, batch, threads)
    rows = [(p.direction, b) for p in parts for b in range(p.first, p.first + p.count)]
    assert sorted(rows) == [(d, b) for d in range(directions) for b in range(batch)]
    assert len(parts) <= max(threads + directions - 1, directions)


def test_a_kernel_that_cannot_run_says_why_and_the_reference_is_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lightasr.kernels import scan as module

    module._module.cache_clear()
    gates, weight, h0, _ = problem("ligru", (5, 1, 2, 4), torch.float32)
    found = scan("ligru", gates, weight, h0, kernel="triton")
    expected = reference.ligru_scan(gates, weight, h0)
    torch.testing.assert_close(found, expected)
    assert "kernel triton for ligru on cpu: " in (told := capsys.readouterr().err)
    assert "the reference is used" in told


def test_gates_in_half_precision_keep_their_states_in_full() -> None:
    gates, weight, h0, _ = problem("ligru", (6, 1, 2, 4), torch.float32)
    half = gates.detach().bfloat16().requires_grad_()
    states = scan("ligru", half, weight, h0, kernel="numba")
    torch.testing.assert_close(states, scan("ligru", half.float(), weight, h0, kernel="numba"))
    states.sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


def test_unknown_names_are_errors_with_the_known_ones() -> None:
    gates, weight, h0, _ = problem("ligru", (5, 1, 2, 4), torch.float32)
    with pytest.raises(LightasrError, match="no kernel 'cuda'; known: auto, reference, numba"):
        scan("ligru", gates, weight, h0, kernel="cuda")
    with pytest.raises(LightasrError, match="no recurrence 'gru2'; known: ligru"):
        scan("gru2", gates, weight, h0)


def test_every_cell_has_a_reference() -> None:
    assert set(REFERENCE) == cpu.CELLS


@pytest.mark.parametrize(("theirs", "cell"), [("LiGRU", "ligru"), ("SLiGRU", "sligru")])
@pytest.mark.parametrize("kernel", ["numba", "reference"])
def test_one_direction_is_speechbrains(theirs: str, cell: str, kernel: str) -> None:
    """With its weights and in evaluation, where its batch norm does not count padding."""
    recurrent = pytest.importorskip("speechbrain.nnet.RNN")
    torch.manual_seed(0)
    model = getattr(recurrent, theirs)(hidden_size=24, input_shape=(3, 20, 16)).eval()
    x_bti = torch.randn(3, 20, 16)
    layer = model.rnn[0]
    with torch.no_grad():
        expected, _ = model(x_bti)
        product = layer.w(x_bti)
        gates = layer.norm(product.flatten(0, 1)).view_as(product).transpose(0, 1)[:, None]
        states = scan(cell, gates, layer.u.weight.T[None], torch.zeros(1, 3, 24), kernel=kernel)
    torch.testing.assert_close(states[:, 0].transpose(0, 1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("given", "taken"), [(None, "10000"), ("7", "7")])
def test_torchs_idle_threads_leave_the_cores_to_ours(given: str | None, taken: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if given is not None:
        environment["GOMP_SPINCOUNT"] = given
    program = "import lightasr, os; print(os.environ['GOMP_SPINCOUNT'])"
    printed = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert printed.strip() == taken
