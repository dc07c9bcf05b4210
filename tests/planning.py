"""What tests of the plan and of the workflow do to a copy of the project."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

import lightasr
from lightasr.jobs import Job
from lightasr.plan import Plan

SOURCE = Path(lightasr.__file__).parents[1]


def write_study(project: Path, name: str = "mine", /, **keys: Any) -> Path:
    """A study file; title, columns and one plain row unless given."""
    tree = {"title": "T", "columns": ["params"], "experiments": {"plain": {}}, **keys}
    path = project / "config" / "studies" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


def write_manifests(project: Path) -> None:
    """What scales ask their users for: an utterance a part, and a text of one sentence."""
    header = "id\tspeaker\taudio\ttext\tsplit\n"
    for scale in sorted((project / "config" / "scales").glob("*.yaml")):
        datasets = yaml.safe_load(scale.read_text()).get("datasets", {})
        for name, part in ((n, p) for each in datasets.values() for n, p in each["parts"].items()):
            path = project / (part.get("manifest") or part["text"])
            path.parent.mkdir(parents=True, exist_ok=True)
            if "text" in part:
                path.write_bytes(gzip.compress(b"HELLO\n"))
                continue
            line = f"{name}-1\tme\t{name}.wav\tHELLO\t{part.get('split', '')}\n"
            path.write_text((path.read_text() if path.exists() else header) + line)


def finish(plan: Plan, jobs: Iterable[Job] | None = None, source_digest: str = "5ca1ab1e") -> None:
    """Leave what jobs leave when they are done (all of them, with tables and report, if None)."""
    for job in plan.jobs.values() if jobs is None else jobs:
        receipt = plan.project / job.receipt
        receipt.parent.mkdir(parents=True, exist_ok=True)
        receipt.write_text(json.dumps({"source_digest": source_digest}))
    if jobs is None:
        for name in [*plan.report, *(table for study in plan.studies for table in study.tables)]:
            path = plan.project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def run_in(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A program of this environment, run in a project, with the source under test."""
    paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True
    )


def files_below(project: Path) -> set[str]:
    return {str(path.relative_to(project)) for path in project.rglob("*")}


def job_counts(run: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Jobs by rule, from the table that Snakemake prints."""
    assert run.returncode == 0, run.stdout + run.stderr
    table = re.search(r"^Job stats:\njob +count\n[- ]+\n((?:\w+ +\d+\n)+)", run.stdout, re.M)
    rows = [line.split() for line in table[1].splitlines()] if table else []
    return {rule: int(count) for rule, count in rows}
