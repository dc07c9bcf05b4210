"""How many cores this process may use: what its caller gave it, else what the machine allows."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Snakemake and Slurm hand a rule's threads over as OMP_NUM_THREADS."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else len(os.sched_getaffinity(0))
