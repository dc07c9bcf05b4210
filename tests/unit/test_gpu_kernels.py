"""GPU kernels, run on the CPU: Triton in its interpreter, numba-cuda in its simulator."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

from kernel_cases import Case, differences
from lightasr.errors import LightasrError
from lightasr.kernels import numba_cuda, triton_gpu
from triton_compiler import shared_bytes

PACKAGES = {"triton_gpu": "triton", "numba_cuda": "numba_cuda"}
TOLERANCES = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 2e-3}
TRITON_CASES = [
    *(Case("triton_gpu", cell, 4, 2, 3, 17) for cell in sorted(triton_gpu.CELLS)),
    *(Case("triton_gpu", cell, 1, 1, 3, 5, masked=True) for cell in sorted(triton_gpu.CELLS)),
    # more sequences than a program takes, and more units than a tile holds
    *(Case("triton_gpu", cell, 2, 1, 17, 70, masked=True) for cell in sorted(triton_gpu.CELLS)),
    *(Case("triton_gpu", cell, 3, 2, 3, 17, torch.float64) for cell in sorted(triton_gpu.CELLS)),
    *(Case("triton_gpu", cell, 3, 2, 3, 17, torch.float16) for cell in sorted(triton_gpu.CELLS)),
]
NUMBA_CASES = [
    *(Case("numba_cuda", cell, 2, 2, 3, 5, masked=True) for cell in sorted(numba_cuda.CELLS)),
    *(Case("numba_cuda", cell, 1, 1, 1, 17) for cell in sorted(numba_cuda.CELLS)),
    *(Case("numba_cuda", cell, 2, 1, 1, 5, torch.float64) for cell in sorted(numba_cuda.CELLS)),
    *(Case("numba_cuda", cell, 2, 1, 1, 5, torch.float16) for cell in sorted(numba_cuda.CELLS)),
]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Executor]:
    """A process of its own: both packages read whether to emulate when they are imported."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("TRITON_INTERPRET", "1")
            environment.setenv("NUMBA_ENABLE_CUDASIM", "1")
            pool.submit(len, "").result()  # by now the process has started
        yield pool


def skip_without(module: str) -> None:
    if find_spec(PACKAGES[module]) is None:
        pytest.skip(f"{PACKAGES[module]} is not installed")


@pytest.mark.parametrize("case", TRITON_CASES + NUMBA_CASES, ids=str)
def test_states_and_gradients_equal_the_reference(case: Case, emulator: Executor) -> None:
    skip_without(case.module)
    for name, difference in emulator.submit(differences, case).result().items():
        assert difference < TOLERANCES[case.dtype], name


@pytest.mark.parametrize("module", PACKAGES)
def test_a_pass_without_gradients_keeps_nothing(module: str, emulator: Executor) -> None:
    skip_without(module)
    for cell in sorted(triton_gpu.CELLS):
        assert emulator.submit(kept, module, cell).result() == 0


def kept(module: str, cell: str) -> int:
    kernels = import_module(f"lightasr.kernels.{module}")
    inputs = torch.zeros(1, 1, 1, 4), torch.zeros(1, 2, 4), torch.zeros(1, 1, 2)
    return len(kernels.forward(cell, *inputs, None, keep=False)[1])


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    """A process of its own: Triton keeps the driver that it is given."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
            pool.submit(len, "").result()
        yield pool


@pytest.mark.parametrize(
    ("hidden", "dtype"),
    [(17, torch.float32), (128, torch.bfloat16), (512, torch.bfloat16)],
    ids=["fp32", "held-bf16", "streamed-bf16"],
)
@pytest.mark.parametrize("cell", sorted(triton_gpu.CELLS))
def test_triton_programs_compile_and_fit_the_least_shared_memory_of_a_gpu(
    cell: str, hidden: int, dtype: torch.dtype, compiler: Executor
) -> None:
    skip_without("triton_gpu")
    taken = compiler.submit(shared_bytes, 86, cell, hidden, dtype).result()
    assert set(taken) == {f"{cell}_forward", f"{cell}_backward"}
    assert max(taken.values()) <= 99 * 1024


def unavailable(module: str, device: str) -> str | None:
    return import_module(f"lightasr.kernels.{module}").unavailable(torch.device(device))


@pytest.mark.parametrize("module", PACKAGES)
def test_emulated_kernels_run_on_the_cpu(module: str, emulator: Executor) -> None:
    skip_without(module)
    assert emulator.submit(unavailable, module, "cpu").result() is None


def test_the_interpreter_refuses_bfloat16_which_it_gets_wrong(emulator: Executor) -> None:
    skip_without("triton_gpu")
    case = Case("triton_gpu", "ligru", 1, 1, 1, 5, torch.bfloat16)
    with pytest.raises(LightasrError, match="unset TRITON_INTERPRET, or use float32"):
        emulator.submit(differences, case).result()


@pytest.mark.parametrize("module", PACKAGES)
def test_kernels_of_gpus_say_that_they_do_not_run_on_the_cpu(module: str) -> None:
    skip_without(module)
    assert "run on CUDA devices, not on cpu" in str(unavailable(module, "cpu"))


@pytest.mark.parametrize(
    ("module", "advice"),
    [("triton_gpu", "comes with torch"), ("numba_cuda", "pip install lightasr[numba-cuda]")],
)
def test_a_missing_package_is_named_with_how_to_get_it(
    module: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"lightasr.kernels.{module}.find_spec", lambda package: None)
    assert advice in str(unavailable(module, "cuda"))
