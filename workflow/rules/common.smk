# The plan that all rules ask, and what they share.
import os
import sys
from pathlib import Path

from lightasr.plan import load_plan

# Overrides: `snakemake --config scale=smoke studies=encoders,other`.
STUDIES = str(config["studies"]).split(",") if "studies" in config else None
PLAN = load_plan(Path(), config.get("scale"), STUDIES)
# The commands of this Python's environment, whether or not it is activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def receipts(stage):
    """What says that every job of a stage is done."""
    return [job.receipt for job in PLAN.of_stage(stage)]


def inputs(wildcards):
    """What a job reads; it is keyed by content, so its age means nothing."""
    return [ancient(path) for path in PLAN.inputs(wildcards.id)]


wildcard_constraints:
    id="[^/]+",
