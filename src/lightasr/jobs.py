"""What a stage is run on: jobs, the keys that name them, and the places where they lie."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightasr.configfile import Tree

# Raise a stage's number when a change to its code alters its results: everything of that stage
# and below it gets a new key and is made again. Other edits of source make nothing again.
STAGE_VERSION = {
    "archive": 1,
    "features": 1,
    "labels": 1,
    "tokenizer": 1,
    "lm": 2,
    "neural_lm": 1,
    "cluster": 1,
    "pretrain": 1,
    "train": 1,
    "probe": 2,
    "decode": 2,
    "score": 2,
    "measure": 1,
    "tables": 1,
    "report": 1,
}
ROOTS = {
    "archive": "data/archives",
    "features": "data/features",
    "labels": "data/labels",
    "tokenizer": "data/tokenizers",
    "lm": "data/lm",
    "neural_lm": "data/neural_lm",
    "cluster": "data/clusters",
    "pretrain": "results/pretrain",
    "train": "results/train",
    "probe": "results/probe",
    "decode": "results/decode",
    "score": "results/score",
    "measure": "results/measure",
}
STAGES = tuple(ROOTS)


def digest(content: Any) -> str:
    """Ten hex digits that stand for a piece of configuration."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True, eq=False)
class Job:
    """One run of one stage: what it is made from decides its key, its key where it lies."""

    stage: str
    label: str
    config: Tree
    inputs: dict[str, Job] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Inputs of a user's own; `config` holds digests of their content."""
    places: Tree = field(default_factory=dict)
    """More of its configuration that changes nothing of what is made: where something is had."""

    @cached_property
    def key(self) -> str:
        upstream = {name: job.key for name, job in self.inputs.items()}
        return digest([self.stage, STAGE_VERSION[self.stage], self.config, upstream])

    @cached_property
    def id(self) -> str:
        """Name of its directory, and what the command line and the rules call it."""
        return f"{self.label}-{self.key}"

    @cached_property
    def dir(self) -> str:
        return f"{ROOTS[self.stage]}/{self.id}"

    @cached_property
    def receipt(self) -> str:
        """The file whose presence says that the directory is complete."""
        return f"{self.dir}/run.json"

    def done(self, project: Path) -> bool:
        return (project / self.receipt).exists()


@dataclass(frozen=True)
class Run:
    """One seed of one experiment, from training to error rates."""

    seed: int
    train: Job
    decode: Job
    score: Job
    neural_lm: Job | None = None
    pretrain: Job | None = None
    probe: Job | None = None

    @property
    def jobs(self) -> tuple[Job, ...]:
        own = (self.neural_lm, self.pretrain, self.train, self.probe, self.decode, self.score)
        return tuple(job for job in own if job is not None)

    @property
    def pretraining(self) -> tuple[Job, ...]:
        """All that was done to pretrain, the last first: clusters, too, and what they are of."""
        made, chain = self.pretrain, []
        while made is not None:
            chain.append(made)
            made = made.inputs.get("clusters") or made.inputs.get("pretrain")
        return tuple(chain)
