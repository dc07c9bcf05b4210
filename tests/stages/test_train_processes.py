"""Training as it is on clusters: several processes, killed at any moment, on a full disk."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_train import slices

from lightasr.train import checkpoint, loop

SCRIPT = Path(__file__).with_name("training_process.py")
PLAIN = {"augment": {"time_masks": 0, "mel_masks": 0}}
NO_DROPOUT = {"encoder": {"dropout": 0.0}, "head": {"dropout": 0.0}}


def run_processes(
    processes: int, tmp_path: Path, settings: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    """Train in `processes` processes; fails unless they do as they should."""
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(SCRIPT), str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


def train(
    processes: int, tmp_path: Path, name: str, inputs: dict[str, Path], **settings: Any
) -> list[dict[str, Any]]:
    """What each rank ends with: losses and weights."""
    work = tmp_path / name
    work.mkdir(exist_ok=True)
    tree = {
        "inputs": {name: str(path) for name, path in inputs.items()},
        "work": str(work),
        "out": str(tmp_path / f"{name}-out"),
        **settings,
    }
    done = run_processes(processes, tmp_path, tree)
    assert done.returncode == 0, done.stderr
    return [torch.load(f"{tree['out']}-{rank}.pt") for rank in range(processes)]


def config(encoder: str = "ligru", dropout: bool = True, **train: Any) -> dict[str, Any]:
    tree = slices(encoder, **train).model_dump(mode="json")
    if not dropout:
        for part, keys in NO_DROPOUT.items():
            tree["model"][part].update(keys)
    return tree


def test_two_processes_have_the_loss_curve_of_one(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Batch norm over all valid frames, batches of odd size: within 1e-4 over 20 steps."""
    settings = config(dropout=False, **PLAIN)
    (alone,) = train(1, tmp_path, "one", tone_inputs, config=settings, stop_at=20)
    first, second = train(2, tmp_path, "two", tone_inputs, config=settings, stop_at=20)
    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    for name, weight in first["model"].items():
        torch.testing.assert_close(weight, second["model"][name], msg=name)


def test_a_batch_in_parts_gives_the_losses_of_the_whole(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    """On one process and on two; without batch norm, whose statistics are those of a part."""
    whole = config(dropout=False, **PLAIN)
    whole["model"]["frontend"]["norm"] = whole["model"]["encoder"]["norm"] = "layer"
    parts = {**whole, "train": {**whole["train"], "accumulate": 3}}
    (expected,) = train(1, tmp_path, "whole", tone_inputs, config=whole, stop_at=10)
    (alone,) = train(1, tmp_path, "parts", tone_inputs, config=parts, stop_at=10)
    together, _ = train(2, tmp_path, "two", tone_inputs, config=parts, stop_at=10)
    assert alone["losses"] == pytest.approx(expected["losses"], abs=1e-4)
    assert together["losses"] == pytest.approx(expected["losses"], abs=1e-4)


def test_two_processes_go_on_bit_for_bit(tone_inputs: dict[str, Path], tmp_path: Path) -> None:
    """In the middle of an epoch, with dropout and SpecAugment."""
    settings = config()
    whole = train(2, tmp_path, "whole", tone_inputs, config=settings, stop_at=14)
    train(2, tmp_path, "pieces", tone_inputs, config=settings, stop_at=9)
    pieces = train(2, tmp_path, "pieces", tone_inputs, config=settings, stop_at=14)
    for a, b in zip(whole, pieces, strict=True):
        assert a["losses"][9:] == b["losses"]
        for name, weight in a["model"].items():
            assert torch.equal(weight, b["model"][name]), name


def test_a_process_that_hangs_is_named(tone_inputs: dict[str, Path], tmp_path: Path) -> None:
    settings = {
        "inputs": {name: str(path) for name, path in tone_inputs.items()},
        "work": str(tmp_path),
        "out": str(tmp_path / "out"),
        "config": config(),
        "stop_at": 20,
        "timeout": 5,
        "hang": [1, 4],
    }
    done = run_processes(2, tmp_path, settings)
    assert done.returncode != 0
    assert "rank 0 waited 5 s at step 4 for rank 1 (on " in done.stderr
    assert "last seen at step 3" in done.stderr


def test_a_training_killed_25_times_ends_with_the_very_same_weights(
    tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    """SIGKILL at random moments, in the middle of writing checkpoints too."""
    settings = {
        "inputs": {name: str(path) for name, path in tone_inputs.items()},
        "config": config(epochs=12),
        "seed": 7,
        "kill_within": 1.2,
    }
    results = {}
    for name, kills in (("undisturbed", 0), ("killed", 25)):
        work = tmp_path / f"{name}-work"
        work.mkdir()
        tree = {**settings, "work": str(work), "out": str(tmp_path / name), "kills": kills}
        done = run_processes(1, tmp_path, tree)
        assert done.returncode == 0, done.stderr
        results[name] = json.loads(done.stdout.splitlines()[-1])
    assert results["killed"]["finished_early"] < 20, "the kills must interrupt something"
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in results)
    assert all(torch.equal(weight, b[name]) for name, weight in a.items())


@contextmanager
def quota(work: Path, size: int) -> Iterator[None]:
    """No file may grow beyond half of a checkpoint."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(work: Path, size: int) -> Iterator[None]:
    """What is in `work`, on a file system with room for half a checkpoint more."""
    kept = {path.name: path.read_bytes() for path in work.iterdir()}
    total = sum(map(len, kept.values())) + size // 2
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={total // 4096 * 4096}", "tmpfs", str(work)]
    if os.geteuid() or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        for name, content in kept.items():
            (work / name).write_bytes(content)
        yield
        kept = {path.name: path.read_bytes() for path in work.iterdir()}
    finally:
        subprocess.run(["umount", "--lazy", str(work)], check=True)
    for name, content in kept.items():
        (work / name).write_bytes(content)


@pytest.mark.parametrize("full", [quota, small_disk])
def test_a_full_disk_loses_nothing_that_was_saved(
    full: Callable[[Path, int], AbstractContextManager[None]],
    tone_inputs: dict[str, Path],
    tmp_path: Path,
) -> None:
    """The disk is full half-way through a checkpoint; with room again the training goes on."""
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    trainer = loop.Trainer(slices(), tone_inputs, work)
    with pytest.raises(loop.RetryError):
        trainer.fit(stop_at=8)
    before = (work / "last.pt").read_bytes()
    with full(work, len(before)):
        with pytest.raises((OSError, RuntimeError)):
            loop.Trainer(slices(), tone_inputs, work).fit(stop_at=9)
        assert (work / "last.pt").read_bytes() == before
    assert checkpoint.load(work / "last.pt", trainer.identity)["progress"]["step"] == 8
    assert loop.run(slices(), tone_inputs, out, work)["steps"] > 8
