# The plan that all rules ask, and what they share.
import os
import sys
from pathlib import Path

from lightasr.errors import LightasrError
from lightasr.plan import load_plan

# Overrides: `snakemake --config scale=smoke studies=encoders,other`.
OVERRIDES = {"scale", "studies"}
try:
    if unknown := sorted(set(config) - OVERRIDES):
        raise LightasrError(
            f"--config {unknown[0]}: unknown; known: {', '.join(sorted(OVERRIDES))}"
        )
    PLAN = load_plan(
        Path(),
        config.get("scale"),
        str(config["studies"]).split(",") if "studies" in config else None,
    )
except LightasrError as error:
    # Alone: a traceback would lead here, while the mistake is in the file that the message names.
    sys.exit(str(error))
# The commands of this Python's environment, whether or not it is activated.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)


def receipts(stage):
    """What says that every job of a stage is done."""
    return [job.receipt for job in PLAN.of_stage(stage)]


def inputs(wildcards):
    """What a job reads; it is keyed by content, so its age means nothing."""
    return [ancient(path) for path in PLAN.inputs(wildcards.id)]


wildcard_constraints:
    id="[^/]+",
