"""A real Slurm cluster on one machine for tests: virtual nodes with pretended GPUs.

It needs root and the Debian packages slurmctld, slurmd, slurm-client and munge, but neither systemd
nor a network. The programs that Snakemake's plugin starts find a cluster by /etc/slurm alone, so a
machine can have one at a time.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

NODES = ("n1", "n2", "n3", "n4", "n5", "n6")
CPUS, GPUS, MEMORY_MB = 8, 4, 16_000
CONTROLLER_PORT, FIRST_NODE_PORT = 16817, 16901
LINKED = ("slurm.conf", "gres.conf", "cgroup.conf")
ETC = Path("/etc/slurm")
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool/%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# A job that takes more memory than it reserved is killed, as cgroups do it on a real cluster.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
MinJobAge=7200
KillWait=5
GresTypes=gpu
SlurmdParameters=config_overrides
"""
PARTITIONS = """\
PartitionName=cpu Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n[1-2] MaxTime=INFINITE State=UP
PartitionName=fragile Nodes=n[3-4] MaxTime=INFINITE State=UP
PartitionName=pair Nodes=n[5-6] MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    for program in ("slurmctld", "slurmd", "sbatch", "munged"):
        if shutil.which(program, path=SYSTEM_PATH) is None:
            return (
                f"NO SLURM: {program} is not installed "
                "(apt install slurmctld slurmd slurm-client munge)"
            )
    return None if os.geteuid() == 0 else "NO SLURM: a test cluster needs root"


@contextmanager
def cluster(folder: Path, accounting: str = "") -> Iterator[Cluster]:
    """A running cluster; `accounting` adds lines of configuration."""
    with Path("/tmp/lightasr-test-cluster.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        started = Cluster(folder)
        try:
            try:
                started.prepare(accounting)
                started.start()
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                pytest.skip(f"NO SLURM: no cluster can be started here: {error}")
            yield started
        finally:
            started.stop()


class Cluster:
    """Daemons of one cluster, and what its users see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self, accounting: str) -> None:
        """Folders, configuration and devices."""
        folder = self.folder
        for name in ("state", *(f"spool/{node}" for node in NODES)):
            (folder / name).mkdir(parents=True)
        host = socket.gethostname().partition(".")[0]
        lines = [CONFIGURATION.format(host=host, port=CONTROLLER_PORT, folder=folder), accounting]
        for number, node in enumerate(NODES):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 "
                f"Port={FIRST_NODE_PORT + number} CPUs={CPUS} RealMemory={MEMORY_MB} "
                f"Gres=gpu:{GPUS} State=UNKNOWN\n"
            )
        (folder / "slurm.conf").write_text("\n".join([*lines, PARTITIONS]))
        devices = f"{folder}/gpu[0-{GPUS - 1}]"
        (folder / "gres.conf").write_text(f"Name=gpu Count={GPUS} File={devices}\n")
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        for number in range(GPUS):  # Slurm wants real devices
            subprocess.run(["mknod", folder / f"gpu{number}", "c", "1", "3"], check=True)

    def start(self) -> None:
        stop_leftovers()
        start_munge()
        ETC.mkdir(exist_ok=True)
        for name in LINKED:
            (ETC / name).unlink(missing_ok=True)
            (ETC / name).symlink_to(self.folder / name)
        daemon("slurmctld")
        for node in NODES:
            self.start_node(node)
        wait_for(self.all_idle, "idle nodes", seconds=30)

    def stop(self) -> None:
        run("scancel", "--quiet", "--user", "root", check=False)
        for node in NODES:
            self.kill_node(node)
        kill_pidfile(self.folder / "slurmctld.pid")
        for name in LINKED:
            (ETC / name).unlink(missing_ok=True)

    def start_node(self, node: str) -> None:
        daemon("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """As if its power failed: its daemon, and all that runs there."""
        jobs = run("squeue", "--noheader", "--nodelist", node, "--format=%A", check=False).split()
        kill_pidfile(self.folder / f"slurmd.{node}.pid")
        for job in jobs:
            kill_trees(rf"slurmstepd: \[{job}\.")

    def all_idle(self) -> bool:
        return all(self.state(node) == "idle" for node in NODES)

    def state(self, node: str) -> str:
        return run("sinfo", "--noheader", "--nodes", node, "--format=%T").split()[0]

    def responds(self, node: str) -> bool:
        """Slurm marks the state of one that does not."""
        return not self.state(node).endswith("*")

    def jobs(self) -> list[dict[str, str]]:
        """Every job since the start, as `scontrol` tells it."""
        told = run("scontrol", "show", "job", "--oneliner", "--all")
        return [
            dict(re.findall(r"(\S+?)=(\S*)", line))
            for line in told.splitlines()
            if line.startswith("JobId=")
        ]


def run(*command: str, check: bool = True) -> str:
    environment = {**os.environ, "PATH": SYSTEM_PATH}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def daemon(*command: str) -> None:
    """It detaches itself, and must not hold the test's pipes open."""
    environment = {**os.environ, "PATH": SYSTEM_PATH}
    nowhere = subprocess.DEVNULL
    subprocess.run(
        command, env=environment, stdin=nowhere, stdout=nowhere, stderr=nowhere, check=True
    )


def start_munge() -> None:
    if subprocess.run(["pgrep", "-x", "munged"], capture_output=True).returncode == 0:
        return
    for folder in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
        run("install", "-d", "-o", "munge", "-g", "munge", folder)
    daemon("runuser", "-u", "munge", "--", "/usr/sbin/munged")


def stop_leftovers() -> None:
    """Daemons of a test that was killed hold the ports."""
    for program in ("slurmctld", "slurmd"):
        subprocess.run(["pkill", "-KILL", "-x", program], capture_output=True)
    kill_trees(r"slurmstepd: \[")


def kill_pidfile(path: Path) -> None:
    try:
        os.kill(int(path.read_text()), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return
    path.unlink(missing_ok=True)


def kill_trees(pattern: str) -> None:
    """Processes whose command line matches, and all that they started."""
    table = [line.split(maxsplit=2) for line in run("ps", "-eo", "pid=,ppid=,args=").splitlines()]
    doomed = {pid for pid, _, arguments in table if re.match(pattern, arguments)}
    more = True
    while more:
        children = {pid for pid, parent, _ in table if parent in doomed} - doomed
        doomed |= children
        more = bool(children)
    for pid in doomed:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def wait_for(happened: Callable[[], object], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within {seconds:g} s")
        time.sleep(0.3)
