"""GPU kernels on a GPU: states and gradients equal the reference over sizes and types."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from kernel_cases import SCANS, Case, differences

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]

MODULES = ("triton_gpu", "numba_cuda")
SIZES = [(1, 1, 1, 5), (3, 2, 3, 17), (20, 2, 17, 64), (20, 1, 16, 130), (50, 2, 33, 512)]
WIDE = [(20, 1, 3, 1000), (20, 2, 64, 1024), (400, 2, 16, 256)]


def check(case: Case, states: float, gradients: float) -> None:
    why = import_module(f"lightasr.kernels.{case.module}").unavailable(torch.device("cuda"))
    if why:
        pytest.skip(why)
    found = differences(case, "cuda")
    assert found.pop("states") < states
    for name, difference in found.items():
        assert difference < gradients, name


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", SCANS)
@pytest.mark.parametrize("module", MODULES)
def test_float64_equals_the_reference(
    module: str, cell: str, sizes: tuple[int, int, int, int], masked: bool
) -> None:
    check(Case(module, cell, *sizes, torch.float64, masked), 1e-12, 1e-12)


@pytest.mark.parametrize("sizes", SIZES + WIDE, ids=str)
@pytest.mark.parametrize("cell", SCANS)
@pytest.mark.parametrize("module", MODULES)
def test_float32_equals_the_reference(
    module: str, cell: str, sizes: tuple[int, int, int, int]
) -> None:
    # gradients of a pre-activation that rounding moved over the kink of ReLU differ as a whole
    check(Case(module, cell, *sizes), 1e-5, 5e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("sizes", SIZES + WIDE, ids=str)
@pytest.mark.parametrize("cell", SCANS)
@pytest.mark.parametrize("module", MODULES)
def test_half_precision_is_as_near_as_its_rounding(
    module: str, cell: str, sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    eps = torch.finfo(dtype).eps
    check(Case(module, cell, *sizes, dtype), 4 * eps, 0.2)
