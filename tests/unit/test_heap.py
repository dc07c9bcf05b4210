"""A training on the processor gives back what freed tensors leave, before its memory runs out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from lightasr.train import heap
from lightasr.train.heap import Heap, allowed_mb, resident_mb


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, trims glibc's heap")
def test_holes_are_given_back_when_a_process_holds_most_of_what_it_may() -> None:
    before = resident_mb()
    tensors = [torch.ones(25_000) for _ in range(4000)]  # 400 MB, each too small for its own map
    del tensors[::2]
    full = resident_mb()
    for plenty in (None, 2 * full):
        Heap(plenty).tidy()
        assert resident_mb() > full - 20, "nothing is given back while there is memory"
    Heap(before).tidy()
    assert resident_mb() < full - 150, "half of it were holes"
    assert sum(tensor.sum().item() for tensor in tensors) == 25_000 * len(tensors)


@pytest.mark.parametrize(
    ("environment", "allowed"),
    [
        ({"SLURM_MEM_PER_NODE": "8000"}, 8000),
        ({"SLURM_MEM_PER_NODE": "8000", "LOCAL_WORLD_SIZE": "4"}, 2000),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_ON_NODE": "8"}, 4000),
        ({}, 16_000),
    ],
)
def test_what_a_process_may_hold_is_its_share_of_the_jobs_or_the_containers(
    environment: dict[str, str],
    allowed: float | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    container = tmp_path / "memory.max"
    container.write_text("16000000000\n")
    monkeypatch.setattr(heap, "CONTAINER", container)
    assert allowed_mb() == allowed
    container.write_text("max\n")
    if not environment:
        assert allowed_mb() is None
