"""A project on a test cluster, and the calls of Snakemake in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PARTS_OF_PROJECT = ("config", "workflow", "profiles", "Snakefile", "dvc.yaml")
TINY = {"name": "ds2", "dim": 16, "layers": 1}
SMALL = {"corpus": {"test": ["test-clean"]}, "model": {"encoder": TINY}}
QUICKLY = Path(__file__).with_name("quick_snakemake.py")
# What a site sets in the profile: no accounting database, small nodes.
OF_SITE = {
    "slurm-status-command": "squeue",
    "slurm-init-seconds-before-status-checks": 1,
    "seconds-between-status-checks": 1,
    "latency-wait": 20,
    "set-threads": {"train_model": 1, "compute_features": 2},
}


class Site:
    """A project on the cluster, and the call of Snakemake in it."""

    process: subprocess.Popen[str]

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "snakemake.log"

    @classmethod
    def create(cls, folder: Path) -> Site:
        """The project as a user has it after cloning, without data and results."""
        folder.mkdir()
        for name in PARTS_OF_PROJECT:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / name)
        (folder / "slurm").symlink_to("profiles/slurm")
        profile = folder / "slurm" / "profile.yaml"
        profile.write_text(yaml.safe_dump({**yaml.safe_load(profile.read_text()), **OF_SITE}))
        return cls(folder)

    def study(self, name: str, experiments: dict[str, Any], **settings: Any) -> None:
        tree = {"title": name, "columns": ["params"], "seeds": [1], "experiments": experiments}
        tree["base"] = {**SMALL, "decode": {"decoders": ["greedy"]}}
        path = self.folder / "config" / "studies" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**tree, **settings}, sort_keys=False))

    def start(
        self,
        study: str,
        *train: str,
        status: str = "squeue",
        options: tuple[str, ...] = (),
        targets: tuple[str, ...] = (),
    ) -> None:
        """`train` are resources of trainings, in place of the profile's."""
        command = [sys.executable, QUICKLY, "--profile", "slurm", *options]
        command += ["--slurm-status-command", status, "--config", "scale=smoke", f"studies={study}"]
        if train:
            command += ["--set-resources", *(f"train_model:{setting}" for setting in train)]
        command += ["--", *targets]
        environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        environment.pop("OMP_NUM_THREADS", None)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def finish(self) -> None:
        assert self.process.wait() == 0, self.log.read_text()[-6000:]

    def receipt(self, stage: str = "train") -> dict[str, Any]:
        """Of the newest run of a stage."""
        newest = max(self.folder.glob(f"results/{stage}/*/run.json"), key=os.path.getmtime)
        return {"id": newest.parent.name, **json.loads(newest.read_text())}

    def trains(self) -> bool:
        """Whether a training of this project has made its first steps."""
        return any("epoch" in path.read_text() for path in self.folder.glob("logs/train/*.log"))

    def copy(self, name: str) -> Site:
        folder = self.folder.with_name(name)
        shutil.copytree(self.folder, folder, symlinks=True)
        shutil.rmtree(folder / "logs")
        return Site(folder)
