"""What the Slurm profile makes of the rules, by dry runs: no cluster is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightasr.plan import load_plan
from lightasr.resources import foresee
from planning import run_in

PROFILE = ("-m", "snakemake", "--profile", "slurm", "-n", "-p", "--config", "scale=smoke")


def jobs(project: Path, *options: str) -> dict[str, str]:
    """What a dry run prints of the first job of each rule, with its command."""
    ran = run_in(project, *PROFILE, "studies=encoders", *options)
    assert ran.returncode == 0, ran.stderr
    assert "Warning" not in ran.stderr
    found: dict[str, str] = {}
    shown = r"(?m)^ *rule (\w+):\n((?:^ .*\n)+(?:^Shell command:.*\n)?)"
    for name, text in re.findall(shown, ran.stdout):
        found.setdefault(name, text)
    return found


@pytest.fixture
def printed(project: Path) -> dict[str, str]:
    return jobs(project)


def test_a_training_gets_a_gpu_a_warning_and_what_the_plan_foresees(
    project: Path, printed: dict[str, str]
) -> None:
    training = printed["train_model"]
    (needs,) = {
        foresee(job, project) for job in load_plan(project, "smoke", ["encoders"]).of_stage("train")
    }
    for resource in (
        "slurm_partition=gpu",
        "gpu=1",
        f"mem_mb={needs.mem_mb}",
        f"runtime={needs.minutes}",
        "slurm_extra=--signal=USR1@300",
    ):
        assert resource in training
    assert training.endswith("--devices 1\n")


def test_other_stages_get_no_gpu(printed: dict[str, str]) -> None:
    for rule in ("fetch_part", "compute_features", "build_lm", "decode_run", "score_run"):
        assert "slurm_partition=cpu" in printed[rule]
        assert "gpu=" not in printed[rule]


def test_four_gpus_of_a_node_are_four_processes(project: Path) -> None:
    training = jobs(project, "--set-resources", "train_model:gpu=4")["train_model"]
    assert training.endswith("--devices 4\n")


def test_two_nodes_are_joined_by_srun(project: Path) -> None:
    settings = ("nodes=2", "tasks=2", "tasks_per_gpu=0", "gres='gpu:4'", "mpi=srun")
    options = ("--set-resources", *(f"train_model:{setting}" for setting in settings))
    training = jobs(project, *options)["train_model"]
    assert "srun --nodes=2 --ntasks=2 lightasr" in training
    assert training.endswith('--devices 4 --nodes 2 --rendezvous "$(hostname)"\n')


def test_resources_of_a_call_override_the_plan(project: Path) -> None:
    training = jobs(project, "--set-resources", "train_model:mem_mb=32000")["train_model"]
    assert "mem_mb=32000" in training
