"""`snakemake` that asks for the state of its Slurm jobs every second.

The plugin asks after 1, 12, 33, 64 s and so on, which is right for jobs of hours.
"""

from __future__ import annotations

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(
    lambda executor: 1, lambda executor, seconds: None
)
main()
