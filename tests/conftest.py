"""Fixtures for tests of every folder."""

from __future__ import annotations

import os
import shutil
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
