"""Fixtures for tests of every folder."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Test processes run side by side: were each to use all cores, their threads would spin most of the
# time, waiting for one another. Read when torch is loaded, so set before any test is.
os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project as a user has it after cloning, without source, data and results."""
    folder = tmp_path / "project"
    for name in ("config", "workflow", "profiles"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "slurm").symlink_to("profiles/slurm")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `alone` come last, when no cluster of the tests is at work any more."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tests marked `alone` measure time: those of the other processes wait until they are over.

    Outside of everything else, so that waiting counts against no test's time limit.
    """
    assert item.config.cache is not None
    locks = item.config.cache.mkdir("alone")  # the same for all processes
    wanted = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with locked(locks / "running", wanted, queue=locks / "queue"):
        return (yield)


@contextmanager
def locked(file: Path, how: int, queue: Path) -> Iterator[None]:
    """Hold a lock that is given in the order in which it was asked for, so that all get it.

    One that children made by fork do not hold, too.
    """
    with file.open("a+") as lock:
        with queue.open("a+") as first:
            fcntl.lockf(first, fcntl.LOCK_EX)
            fcntl.lockf(lock, how)
        yield
