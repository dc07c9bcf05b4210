"""How long planning takes when a study has a thousand rows: `lightasr plan`, `snakemake -n`."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lightasr.cost.timing import Measured

TITLE = "Planning many experiments"
COPIED = ("config", "workflow", "profiles", "Snakefile")
STUDY = "many"


def rows(project: Path, experiments: int = 1000, seeds: tuple[int, ...] = (1,)) -> list[Measured]:
    """Seconds of each command over a generated study, in a copy of the project."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        copy_project(project, copy)
        write_study(copy, experiments, seeds)
        commands = {
            "lightasr plan": ["-m", "lightasr", "plan", "--scale", "many", "--study", STUDY],
            "snakemake -n": [
                *["-m", "snakemake", "-n", "--profile", "profiles/local"],
                *["--config", "scale=many", f"studies={STUDY}"],
            ],
        }
        return [
            {"command": name, "experiments": experiments, "seeds": len(seeds), **timed(copy, call)}
            for name, call in commands.items()
        ]


def copy_project(project: Path, copy: Path) -> None:
    for name in COPIED:
        source = project / name
        if source.is_dir():
            shutil.copytree(source, copy / name)
        else:
            shutil.copy(source, copy / name)


def write_study(project: Path, experiments: int, seeds: tuple[int, ...]) -> None:
    """Half of the rows are a grid, half are entries that extend another."""
    grid = experiments // 2
    tree = {
        "title": "Many experiments",
        "columns": ["params", "wer/test-clean"],
        "seeds": list(seeds),
        "experiments": {
            "root": {},
            "grid": {
                "extends": "root",
                "grid": {"train.lr": [round(1e-6 * (i + 1), 6) for i in range(grid)]},
            },
            **{
                f"row{i}": {"extends": "root", "train": {"epochs": i + 100}}
                for i in range(experiments - grid - 1)
            },
        },
    }
    config = project / "config"
    (config / "studies" / f"{STUDY}.yaml").write_text(json.dumps(tree))
    (config / "scales" / "many.yaml").write_text("title: as the defaults have it\n")


def timed(project: Path, call: list[str]) -> Measured:
    """Wall seconds and peak memory of one command."""
    started = time.monotonic()
    subprocess.run([sys.executable, *call], cwd=project, check=True, capture_output=True)
    seconds = time.monotonic() - started
    # The largest child so far: commands are measured from the smallest to the largest.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"seconds": seconds, "peak_memory_mb": peak}
