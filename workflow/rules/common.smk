# The plan that all rules ask, and what they share.
import os
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from lightasr.errors import LightasrError
from lightasr.jobs import ROOTS
from lightasr.plan import load_plan
from lightasr.resources import MOST_MINUTES, foresee
from lightasr.snakemakes import announce, clear_after_killed
from lightasr.stage import ORDERED

# Overrides: `snakemake --config scale=smoke studies=encoders,other`, or `studies=[encoders,other]`.
OVERRIDES = {"scale", "studies"}
STUDIES = config.get("studies")
if STUDIES is not None and not isinstance(STUDIES, list):
    STUDIES = str(STUDIES).split(",")
try:
    if unknown := sorted(set(config) - OVERRIDES):
        raise LightasrError(
            f"--config {unknown[0]}: unknown; known: {', '.join(sorted(OVERRIDES))}"
        )
    PLAN = load_plan(
        Path(),
        config.get("scale"),
        STUDIES,
    )
except LightasrError as error:
    # Alone: a traceback would lead here, while the mistake is in the file that the message names.
    sys.exit(str(error))
if workflow.is_main_process:
    clear_after_killed()
    os.environ[ORDERED] = datetime.now(UTC).isoformat(
        timespec="seconds"
    )  # jobs inherit it
# A cluster's warning before the time limit reaches all processes of a job: the trainer saves, and
# the others, this one among them, must live until it has.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
# The commands of this Python's environment, whether or not it is activated.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)


onstart:
    announce()
    # DVC wants the directory of every stage, also where a study has no job of it.
    for root in ROOTS.values():
        Path(root).mkdir(parents=True, exist_ok=True)


def receipt(root):
    """The output of a stage's rule, left in place until the job itself has looked at it."""
    return update(f"{root}/{{id}}/run.json")


def receipts(stage):
    """What says that every job of a stage is done."""
    return [job.receipt for job in PLAN.of_stage(stage)]


def inputs(wildcards):
    """What a job reads; it is keyed by content, so its age means nothing."""
    return [ancient(path) for path in PLAN.inputs(wildcards.id)]


def mem_mb(wildcards, attempt):
    """What the plan foresees; more after a failure, which may have been for want of memory."""
    return attempt * foresee(PLAN.jobs[wildcards.id], PLAN.project).mem_mb


def runtime(wildcards, attempt):
    """Minutes, likewise."""
    minutes = foresee(PLAN.jobs[wildcards.id], PLAN.project).minutes
    return min(MOST_MINUTES, attempt * minutes)


def devices(resources):
    """GPUs of each node, asked for by `gpu: 4` or `gres: "gpu:4"`; 1 where there is none."""
    named = re.search(r"gpu(?::\w+)?:(\d+)", str(resources.get("gres") or ""))
    return max(1, int(named[1]) if named else resources.get("gpu") or 1)


def launcher(wildcards, resources):
    """What starts the command once on each of several nodes."""
    nodes = resources.get("nodes") or 1
    return f"{resources.mpi} --nodes={nodes} --ntasks={nodes}" if nodes > 1 else ""


def processes(wildcards, resources):
    """The processes that train one model together."""
    nodes = resources.get("nodes") or 1
    several = f' --nodes {nodes} --rendezvous "$(hostname)"' if nodes > 1 else ""
    return f"--devices {devices(resources)}{several}"


wildcard_constraints:
    id="[^/]+",
