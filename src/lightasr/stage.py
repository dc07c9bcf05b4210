"""Runs one stage of the plan by hand or for the workflow: outputs appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from lightasr import schema
from lightasr.errors import LightasrError
from lightasr.files import write_atomically
from lightasr.invalid import Layer, check
from lightasr.jobs import Job
from lightasr.lock import locked
from lightasr.plan import Plan
from lightasr.progress import say
from lightasr.verify import Compare, damage, fingerprints

# A stage: the typed slice of its configuration, and the module whose `run` does the work.
RUNNERS: dict[str, tuple[type[schema.Section], str]] = {
    "archive": (schema.ArchiveSlice, "lightasr.data.archives"),
    "features": (schema.FeaturesSlice, "lightasr.data.features"),
    "labels": (schema.LabelsSlice, "lightasr.data.labels"),
    "tokenizer": (schema.TokenizerSlice, "lightasr.text.tokenizers"),
    "lm": (schema.LanguageModelSlice, "lightasr.lm.ngram"),
    "neural_lm": (schema.NeuralLMSlice, "lightasr.lm.neural.training"),
    "cluster": (schema.ClusterSlice, "lightasr.train.clusters"),
    "pretrain": (schema.PretrainSlice, "lightasr.train.pretraining"),
    "train": (schema.TrainSlice, "lightasr.train.loop"),
    "probe": (schema.ProbeSlice, "lightasr.probe.layers"),
    "decode": (schema.DecodeSlice, "lightasr.decode.run"),
    "score": (schema.Score, "lightasr.score.wer"),
    "measure": (schema.MeasureSlice, "lightasr.cost.lengths"),
}
ORDERED = "LIGHTASR_ORDERED"  # when the workflow was started that orders a job
REPORTED_PACKAGES = ("torch", "torchaudio", "lhotse", "numpy", "numba", "snakemake")


def execute(plan: Plan, job: Job) -> None:
    """Make a job's directory, unless it is there."""
    project = plan.project
    if finished(job, project):
        say(f"{job.stage} {job.id}: done before")
        return
    for upstream in job.inputs.values():
        if not upstream.done(project):
            raise LightasrError(
                f"{job.stage} {job.id}: needs {upstream.stage} {upstream.id} first: "
                f"run `snakemake --profile profiles/local -- {upstream.receipt}`"
            )
        if (reason := damage(project / upstream.dir, Compare.SIZES)) is not None:
            raise LightasrError(
                f"{job.stage} {job.id}: reads {upstream.dir}, which is damaged: {reason}; "
                "run `lightasr verify --discard`, then the workflow again"
            )
    section, module = RUNNERS[job.stage]
    whole = {**job.config, **job.places}
    config = check(section, whole, [Layer(job.dir, None, whole)])
    run: Callable[..., dict[str, Any] | None] = import_module(module).run
    work = project / "checkpoints" / job.stage / job.id
    work.mkdir(parents=True, exist_ok=True)
    inputs = {name: project / upstream.dir for name, upstream in job.inputs.items()}
    inputs |= {name: project / path for name, path in job.files.items()}
    if int(os.environ.get("RANK", "0")):
        run(config, inputs, project / job.dir, work)  # rank 0 locks, writes and keeps the record
        return
    with locked(work, f"{job.stage} {job.id}"):
        if finished(job, project):  # another process was quicker
            return
        with Attempt(work) as attempt:
            out = fresh_directory(project / job.dir)
            (out / "config.json").write_text(json.dumps(job.config, indent=1) + "\n")
            try:
                extras = run(config, inputs, out, work) or {}
            except OSError as error:
                if error.filename is None and error.errno is not None:
                    raise LightasrError(f"{job.stage} {job.id}: {error.strerror}") from error
                raise
        receipt = {**record(job, attempt), **extras, "files": fingerprints(out)}
        (out / "run.json").write_text(json.dumps(receipt, indent=1) + "\n")
        put_in_place(out, project / job.dir)
        shutil.rmtree(work)


def finished(job: Job, project: Path) -> bool:
    """Whether there is nothing to do.

    The workflow orders what is there only on purpose (`snakemake --forcerun`), unless it was made
    after the order: by a job of a workflow that was killed and started again, while this job waited
    in a cluster's queue.
    """
    ordered = os.environ.get(ORDERED)
    if ordered is None or not job.done(project):
        return job.done(project)
    if damage(project / job.dir, Compare.SIZES) is not None:
        return False
    receipt = json.loads((project / job.receipt).read_text())
    return datetime.fromisoformat(receipt["finished"]) >= datetime.fromisoformat(ordered)


def fresh_directory(final: Path) -> Path:
    """An empty directory beside the final one, where what a killed attempt left is cleared."""
    out = final.with_name(f".{final.name}.part")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    return out


def put_in_place(out: Path, final: Path) -> None:
    """Rename a complete directory; Snakemake may have made an empty one in its place."""
    for path in out.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    if final.exists():
        shutil.rmtree(final)
    out.rename(final)


def seconds_before(work: Path) -> list[float]:
    """What each earlier attempt at a directory took, for a stage that tells its own costs."""
    path = work / "attempts.json"
    attempts = json.loads(path.read_text()) if path.exists() else []
    return [float(attempt["seconds"]) for attempt in attempts[:-1]]


class Attempt:
    """Time, count and ends of the attempts at one directory, kept where a kill does not reach."""

    def __init__(self, work: Path) -> None:
        self.path = work / "attempts.json"
        self.earlier = json.loads(self.path.read_text()) if self.path.exists() else []
        self.started, self.clock = datetime.now(UTC), time.monotonic()
        self.seconds = 0.0
        self.note(None)  # counted even if it is killed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.seconds = time.monotonic() - self.clock
        self.note(None if error is None else str(error) or type(error).__name__)

    def note(self, ended: str | None) -> None:
        """What ended it; None: a kill, of which it does not know, or nothing yet."""
        now = {"seconds": self.seconds, "ended": ended}
        write_atomically(self.path, json.dumps([*self.earlier, now]))

    @property
    def ends(self) -> list[str | None]:
        """What ended those before it."""
        return [each.get("ended") for each in self.earlier]


def record(job: Job, attempt: Attempt) -> dict[str, Any]:
    """What `run.json` says of any stage; what was not measured is null."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024
    return {
        "stage": job.stage,
        "label": job.label,
        "key": job.key,
        "git_commit": git_commit(),
        "source_digest": source_digest(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in REPORTED_PACKAGES},
        },
        "host": socket.gethostname(),
        "seed": job.config.get("seed") or job.config.get("train", {}).get("seed"),
        "attempts": len(attempt.earlier) + 1,
        "ended": attempt.ends,
        "seconds": attempt.seconds + sum(earlier["seconds"] for earlier in attempt.earlier),
        "gpu_seconds": None,
        "peak_memory_mb": max(u.ru_maxrss for u in usage) * bytes_per_unit / 1e6,
        "energy_joules": None,
        "energy_source": None,
        "started": attempt.started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": {name: upstream.id for name, upstream in job.inputs.items()},
    }


@cache
def source_digest() -> str:
    """Stands for the text of the whole package: results of other source are marked."""
    package = Path(__file__).parent
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        whole.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()[:10]


@cache
def git_commit() -> str | None:
    """The commit the package is run from, `+` where files differ from it; None outside of git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
