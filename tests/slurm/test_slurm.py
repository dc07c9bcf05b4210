"""The workflow on a real Slurm cluster: every job through sbatch, and what goes wrong there.

The daemons are real, their nodes are not. A training that has to be met while it runs has many
epochs of a minute of speech.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml
from cluster import Cluster, cluster, missing, run, wait_for
from sites import BIN, QUICKLY, ROOT, SMALL, TINY, Site

from lightasr.plan import load_plan
from lightasr.resources import foresee

GPU = ("slurm_partition=gpu", "gpu=1")

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(not (BIN / "lmplz").exists(), reason="lmplz is not built"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def site(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A project whose smoke DAG, with beam search, table and report, ran through sbatch."""
    made = Site.create(tmp_path_factory.mktemp("sites") / "first")
    made.study(
        "first",
        {"gru": {"model": {"encoder": {"unit": "gru"}}}, "ligru": {}},
        base={**SMALL, "model": {"encoder": {**TINY, "unit": "ligru"}}},
    )
    made.start("first")
    made.finish()
    return made


FRAGILE = ("slurm_partition=fragile", "gpu=1")  # nodes that one test kills
TRAININGS: dict[str, tuple[int, tuple[str, ...]]] = {
    "limit": (20, ("runtime=attempt + 1", *GPU)),
    "warned": (20, GPU),
    "memory": (3, ("mem_mb=350 * attempt", *GPU)),
    "two_gpus": (3, ("slurm_partition=gpu", "gpu=2")),
    "two_nodes": (
        3,
        (
            *("slurm_partition=pair", "nodes=2", "tasks=2", "tasks_per_gpu=0", "mpi=srun"),
            "gres='gpu:2'",
        ),
    ),
    "node": (20, FRAGILE),
    "killed": (20, GPU),
}
"""Epochs, and resources in place of the profile's."""


@pytest.fixture(scope="module")
def trainings(slurm: Cluster, site: Site) -> Iterator[dict[str, Site]]:
    """Projects that train at the same time; to each something different happens."""
    projects = {name: site.copy(name) for name in TRAININGS}
    for name, (epochs, resources) in TRAININGS.items():
        projects[name].study(name, {name: {"train": {"epochs": epochs}}})
        projects[name].start(name, *resources, options=("--retries", "5"), targets=("train",))
    try:
        awaited = dict(HAPPENINGS)

        def all_happened() -> bool:
            for name in [name for name in awaited if projects[name].trains()]:
                *_, job = states(slurm, projects[name], "train_model")
                awaited.pop(name)(slurm, projects[name], job)
            return not awaited

        wait_for(all_happened, f"first epoch of {', '.join(awaited)}", seconds=300)
        yield projects
    finally:
        for project in projects.values():
            project.process.kill()
            project.process.wait()


def send(project: Site, number: signal.Signals) -> None:
    """A signal to the process that trains."""
    (lock,) = project.folder.glob("checkpoints/train/*/lock")
    os.kill(json.loads(lock.read_text())["pid"], number)


def pause(slurm: Cluster, project: Site, job: dict[str, str]) -> None:
    """Slurm wakes it to tell it that its time is up."""
    send(project, signal.SIGSTOP)


def warn(slurm: Cluster, project: Site, job: dict[str, str]) -> None:
    """As `--signal=USR1@300` of the profile does it: every process of the job's steps hears it."""
    run("scancel", "--signal=USR1", job["JobId"])


def kill_node(slurm: Cluster, project: Site, job: dict[str, str]) -> None:
    slurm.kill_node(job["NodeList"])


def kill_main_process(slurm: Cluster, project: Site, job: dict[str, str]) -> None:
    """And start it again, while its job still trains."""
    pause(slurm, project, job)
    os.kill(project.process.pid, signal.SIGKILL)
    project.process.wait()
    project.start("killed", *GPU, options=("--retries", "0"), targets=("train",))


HAPPENINGS = {"limit": pause, "warned": warn, "node": kill_node, "killed": kill_main_process}
"""What happens to a training once it has begun."""


def states(slurm: Cluster, project: Site, part: str) -> list[dict[str, str]]:
    """Slurm's jobs of a project with this in their comment, in the order of their submission."""
    return [
        job
        for job in slurm.jobs()
        if job["WorkDir"] == str(project.folder) and part in job["Comment"]
    ]


def curves(project: Site) -> list[dict[str, str]]:
    (path,) = project.folder.glob(f"results/train/{project.receipt()['id']}/curves.csv")
    with path.open() as stream:
        return list(csv.DictReader(stream))


def epochs_of(project: Site) -> list[int]:
    return [int(row["epoch"]) for row in curves(project)]


# --- the smoke DAG ------------------------------------------------------------------------------


def test_every_stage_ran_as_a_job_that_names_it_and_its_run(slurm: Cluster, site: Site) -> None:
    jobs = states(slurm, site, "")
    assert all(job["JobName"].startswith("lightasr_") for job in jobs)
    comments = [job["Comment"] for job in jobs]
    trained = [path.parent.name for path in site.folder.glob("results/train/*/run.json")]
    assert len(trained) == 2
    for run_id in trained:
        assert f"rule_train_model_wildcards_{run_id}" in comments
    for rule in ("fetch_part", "compute_features", "build_lm", "make_tokenizer", "make_report"):
        assert any(comment.startswith(f"rule_{rule}") for comment in comments)
    with (site.folder / "results/tables/smoke/first.csv").open() as stream:
        assert [row["experiment"] for row in csv.DictReader(stream)] == ["gru", "ligru"]


def test_short_stages_of_several_runs_share_a_job(slurm: Cluster, site: Site) -> None:
    (evaluation,) = states(slurm, site, "rule_evaluate")
    assert len(list(site.folder.glob("results/score/*/run.json"))) == 2
    foreseen = foresee(load_plan(site.folder, "smoke", ["first"]).of_stage("decode")[0], ROOT)
    assert f"mem={foreseen.mem_mb}M" in evaluation["TRES"], "one after the other"


def test_reservations_are_what_the_plan_foresees(slurm: Cluster, site: Site) -> None:
    plan = load_plan(site.folder, "smoke", ["first"])
    for job in plan.of_stage("train"):
        needs = foresee(job, site.folder)
        (submitted,) = states(slurm, site, f"train_model_wildcards_{job.id}")
        assert submitted["TimeLimit"] == f"{needs.minutes // 60:02}:{needs.minutes % 60:02}:00"
        assert f"mem={needs.mem_mb}M" in submitted["TRES"]
        assert submitted["Partition"] == "gpu"


# --- misfortunes --------------------------------------------------------------------------------


def test_two_gpus_of_a_node_are_seen_by_two_processes(trainings: dict[str, Site]) -> None:
    project = trainings["two_gpus"]
    project.finish()
    assert project.receipt()["processes"] == 2
    assert re.search(r"CUDA_VISIBLE_DEVICES=\d,\d\n", logs(project))


def test_two_nodes_train_one_model(slurm: Cluster, trainings: dict[str, Site]) -> None:
    project = trainings["two_nodes"]
    project.finish()
    (job,) = states(slurm, project, "train_model")
    assert job["NodeList"] == "n[5-6]"
    assert project.receipt()["processes"] == 4
    assert len(re.findall(r"CUDA_VISIBLE_DEVICES=\d,\d\n", logs(project))) == 2


def test_a_training_that_takes_too_much_memory_gets_more(
    slurm: Cluster, trainings: dict[str, Site]
) -> None:
    project = trainings["memory"]
    project.finish()
    *killed, last = states(slurm, project, "train_model")
    assert killed
    assert all(job["JobState"] in {"OUT_OF_MEMORY", "FAILED", "CANCELLED"} for job in killed)
    reserved = [int(re.search(r"mem=(\d+)M", job["TRES"])[1]) for job in (*killed, last)]
    assert reserved == [350 * attempt for attempt in range(1, len(reserved) + 1)]
    assert last["JobState"] == "COMPLETED"


def test_a_warning_before_the_time_limit_lets_it_save_at_leisure(
    slurm: Cluster, trainings: dict[str, Site]
) -> None:
    project = trainings["warned"]
    project.finish()
    assert ended(project) == ["saved at step N (SIGUSR1)"]
    assert "User defined signal" not in logs(project), "nothing around the trainer died of it"
    assert project.receipt()["attempts"] == 2
    assert epochs_of(project) == list(range(1, 21))


def ended(project: Site) -> list[str]:
    """How the attempts before the last ended; Slurm may swallow a job's last words in the log."""
    return [re.sub(r".*: (.* )\d+", r"\1N", end) for end in project.receipt()["ended"]]


def logs(project: Site) -> str:
    return "".join(path.read_text() for path in sorted(project.folder.rglob("logs/**/*.log")))


def test_a_killed_snakemake_that_is_started_again_trains_nothing_twice(
    slurm: Cluster, trainings: dict[str, Site]
) -> None:
    project = trainings["killed"]
    assert project.process.wait() != 0
    first, *_ = states(slurm, project, "train_model")
    assert "is being made by process" in logs(project)
    assert f"job {first['JobId']}" in logs(project)

    # One that is submitted before the first ends, and starts after it, finds its work done.
    waiting = f"slurm_extra='--dependency=afterany:{first['JobId']}'"
    project.start("killed", *GPU, waiting, targets=("train",))
    wait_for(lambda: len(states(slurm, project, "train_model")) == 3, "third job", seconds=60)
    send(project, signal.SIGCONT)
    project.finish()
    assert [job["JobState"] for job in states(slurm, project, "train_model")] == [
        *("COMPLETED", "FAILED", "COMPLETED")
    ]
    assert "done before" in logs(project)
    assert project.receipt()["attempts"] == 1
    assert epochs_of(project) == list(range(1, 21))


@pytest.mark.parametrize("experiments", [12, pytest.param(50, marks=pytest.mark.slow)])
def test_many_experiments_are_a_few_jobs(slurm: Cluster, site: Site, experiments: int) -> None:
    """They differ in scoring alone, so that they are as many short jobs and one training."""
    name = f"many{experiments}"
    project = site.copy(name)
    samples = list(range(100, 100 + experiments))
    project.study(name, {name: {"grid": {"score.bootstrap_samples": samples}}})
    project.start(name, *GPU, options=("--group-components", f"evaluate={experiments // 2}"))
    project.finish()
    assert len(states(slurm, project, "train_model")) == 1
    assert len(states(slurm, project, "evaluate")) <= 3
    with (project.folder / f"results/tables/smoke/{name}.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == experiments


def test_dvc_repro_makes_what_is_new_on_the_cluster(slurm: Cluster, site: Site) -> None:
    project = site.copy("ledger")
    config = project.folder / "config" / "config.yaml"
    config.write_text("scale: smoke\nstudies: [first]\n")
    study = project.folder / "config" / "studies" / "first.yaml"
    tree = yaml.safe_load(study.read_text())
    tree["experiments"]["new"] = {"extends": "ligru", "score": {"bootstrap_samples": 123}}
    study.write_text(yaml.safe_dump(tree, sort_keys=False))
    (project.folder / "src").mkdir()
    quickly = project.folder / "bin" / "snakemake"
    quickly.parent.mkdir()
    quickly.write_text(f'#!/bin/sh\nexec {sys.executable} {QUICKLY} "$@"\n')
    quickly.chmod(0o755)
    path = os.pathsep.join([str(quickly.parent), str(BIN), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "SNAKEMAKE_PROFILE": "slurm"}
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"], ["dvc", "repro"]):
        subprocess.run(command, cwd=project.folder, env=environment, check=True)
    rules = [job["Comment"].partition("_wildcards")[0] for job in states(slurm, project, "")]
    assert rules == ["rule_evaluate_score_run", "rule_table_first", "rule_make_report"]
    with (project.folder / "results/tables/smoke/first.csv").open() as stream:
        assert [row["experiment"] for row in csv.DictReader(stream)] == ["gru", "ligru", "new"]


# --- misfortunes that take minutes --------------------------------------------------------------


def test_a_training_goes_on_where_its_time_limit_ended_it(
    slurm: Cluster, trainings: dict[str, Site]
) -> None:
    project = trainings["limit"]
    project.finish()
    *stopped, last = states(slurm, project, "train_model")
    assert [job["JobState"] for job in (*stopped, last)] == ["TIMEOUT", "COMPLETED"]
    assert ended(project) == ["saved at step N (SIGTERM)"]
    assert epochs_of(project) == list(range(1, 21)), "none twice, none left out"


def test_a_node_that_dies_costs_no_more_than_the_last_epoch(
    slurm: Cluster, trainings: dict[str, Site]
) -> None:
    project = trainings["node"]
    project.finish()
    assert [slurm.responds(node) for node in ("n3", "n4")].count(False) == 1
    assert project.receipt()["attempts"] == 2
    assert epochs_of(project) == list(range(1, 21))
