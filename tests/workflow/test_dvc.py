"""DVC as the ledger: what a lab does with it, and how many jobs each of these things costs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lightasr.jobs import ROOTS
from planning import job_counts

ROOT = Path(__file__).parents[2]
CODE = ("config", "workflow", "profiles", "src", "Snakefile")
LEDGER = ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/plots", ".dvc/.gitignore")
STUDY = {
    "title": "Two encoders",
    "columns": ["params", "wer/*/greedy"],
    # Without a beam search there is no job for a language model: its stage makes nothing.
    "base": {
        "corpus": {"test": ["test-clean"]},
        "decode": {"decoders": ["greedy"]},
        "model": {"encoder": {"name": "ds2", "dim": 16}},
    },
    "experiments": {
        "gru": {"model": {"encoder": {"unit": "gru"}}},
        "lstm": {"model": {"encoder": {"unit": "lstm"}}},
    },
}
STUDY_FILE = "config/studies/encoders.yaml"
SCALE_FILE = "config/scales/smoke.yaml"
SNAKEMAKE = ("snakemake", "--profile", "profiles/local")
SKIPPED = "didn't change, skipping"
STAGES = len(ROOTS)  # `cluster` and `pretrain` are one of DVC's, and there are the tables

pytestmark = pytest.mark.timeout(300, func_only=True)  # the lab itself takes a while to make


@pytest.fixture(scope="module", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """DVC remembers files outside of projects, too."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("dvc")))
        monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
        yield


def environment(project: Path) -> dict[str, str]:
    """The commands of this environment, with the source of the project."""
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": os.pathsep.join(path), "PYTHONPATH": str(project / "src")}


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=project, env=environment(project), capture_output=True, text=True
    )


def call(project: Path, *command: str) -> str:
    """What a command that must succeed says."""
    done = run(project, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def snakemake(project: Path, *arguments: str) -> str:
    return call(project, *SNAKEMAKE, *arguments)


def commit(project: Path, message: str) -> None:
    call(project, "git", "add", "--all")
    call(project, "git", "commit", "--quiet", "--message", message)


def receipts(project: Path) -> dict[str, str]:
    """What each finished directory says of how it was made."""
    found = (path for root in ROOTS.values() for path in (project / root).glob("*/run.json"))
    return {str(path.parent.relative_to(project)): path.read_text() for path in found}


def jobs_of(project: Path, work: Callable[[], object]) -> Counter[str]:
    """How many directories of each stage some work made, anew or again."""
    before = receipts(project)
    work()
    made = [name for name, text in receipts(project).items() if before.get(name) != text]
    return Counter(Path(name).parent.name for name in made)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def add_entry(project: Path) -> None:
    entry = {"extends": "lstm", "model": {"encoder": {"dim": 24}}}
    study = {**STUDY, "experiments": {**STUDY["experiments"], "wide": entry}}
    (project / STUDY_FILE).write_text(yaml.safe_dump(study, sort_keys=False))


def clone(source: Path, target: Path) -> Path:
    identity = ["--config", "user.name=lab", "--config", "user.email=lab@example.org"]
    call(source, "git", "clone", "--quiet", *identity, str(source), str(target))
    return target


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab's repository: made by Snakemake, noted by DVC, pushed to a folder, committed."""
    folder = tmp_path_factory.mktemp("lab") / "origin"
    without_caches = shutil.ignore_patterns("__pycache__")
    for name in (*CODE, *LEDGER):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=without_caches)
        else:
            shutil.copy(source, target)
    edit(folder / "config" / "config.yaml", "scale: sample", "scale: smoke")
    (folder / STUDY_FILE).write_text(yaml.safe_dump(STUDY, sort_keys=False))
    ignored = (folder / ".gitignore").read_text().splitlines()
    kept = [line for line in ignored if "smoke" not in line]  # here they are the results
    (folder / ".gitignore").write_text("\n".join(kept) + "\n")
    call(folder, "git", "init", "--quiet")
    for key, value in (("name", "lab"), ("email", "lab@example.org")):
        call(folder, "git", "config", f"user.{key}", value)
    call(folder, "dvc", "remote", "add", "--default", "store", str(folder.parent / "store"))
    call(folder, "dvc", "remote", "modify", "store", "verify", "true")
    commit(folder, "Code")
    snakemake(folder)
    assert Counter(Path(name).parent.name for name in receipts(folder)) == {
        **{"archives": 3, "features": 3, "tokenizers": 1},
        **{"train": 2, "decode": 2, "score": 2},
    }
    call(folder, "dvc", "commit", "--force")
    call(folder, "dvc", "push")
    commit(folder, "Results")
    return folder


@pytest.fixture
def project(origin: Path, tmp_path: Path) -> Path:
    """Someone else's copy of it: cloned and pulled."""
    folder = clone(origin, tmp_path / "project")
    call(folder, "dvc", "pull")
    return folder


def test_a_fresh_clone_with_its_data_has_nothing_to_do(project: Path) -> None:
    said: list[str] = []
    assert not jobs_of(project, lambda: said.append(call(project, "dvc", "repro")))
    assert said[0].count(SKIPPED) == STAGES
    assert call(project, "git", "status", "--porcelain") == ""
    assert "Nothing to be done" in call(project, "snakemake", "-n", "--", "tables")


@pytest.fixture(scope="module")
def grown(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with one more entry, and a comment more in the source of the training."""
    folder = clone(origin, tmp_path_factory.mktemp("grown") / "project")
    call(folder, "dvc", "pull")
    add_entry(folder)
    with (folder / "src/lightasr/train/loop.py").open("a") as stream:
        stream.write("# A remark that changes nothing.\n")
    made = jobs_of(folder, lambda: call(folder, "dvc", "repro"))
    assert made == {"train": 1, "decode": 1, "score": 1}, "one entry: its jobs and no other"
    return folder


def test_results_that_other_source_made_are_named(grown: Path) -> None:
    status = json.loads(call(grown, "lightasr", "status", "--json"))
    current = {
        Path(name).name
        for name, text in receipts(grown).items()
        if json.loads(text)["source_digest"] == status["source_digest"]
    }
    named = {entry["id"] for entry in status["other_source"]}
    assert len(current) == 3, "what the new entry made"
    assert named == {Path(name).name for name in receipts(grown)} - current


def test_metrics_are_error_rates_by_experiment_part_and_decoder(grown: Path) -> None:
    (shown,) = json.loads(call(grown, "dvc", "metrics", "show", "--json")).values()
    metrics = shown["data"]["results/metrics/smoke/encoders.json"]["data"]
    assert list(metrics) == ["gru", "lstm", "wide"]
    assert metrics["wide"]["wer"].keys() == {"dev-clean", "test-clean"}
    assert metrics["wide"]["wer"]["test-clean"]["greedy"] > 0
    changed = json.loads(call(grown, "dvc", "metrics", "diff", "--json"))
    rows = {key.partition(".")[0] for key in changed["results/metrics/smoke/encoders.json"]}
    assert rows == {"wide"}


def test_params_show_what_an_entry_sets(grown: Path) -> None:
    changed = json.loads(call(grown, "dvc", "params", "diff", "--json"))
    assert changed.keys() == {STUDY_FILE}
    assert changed[STUDY_FILE]["experiments.wide.model.encoder.dim"]["new"] == 24


def test_plots_show_error_rates_and_learning_curves(grown: Path, tmp_path: Path) -> None:
    out = tmp_path / "plots"
    call(grown, "dvc", "plots", "diff", "HEAD", "--out", str(out))
    page = (out / "index.html").read_text()
    for kind in ("wer", "curves"):
        assert f"results/plots/{kind}/smoke/encoders.csv" in page
    assert page.count('"experiment": "wide"') >= 2
    assert "<DVC_" not in page


def test_a_features_value_remakes_what_is_below_it(project: Path) -> None:
    edit(project / SCALE_FILE, "mels: 20", "mels: 24")
    first = ("--", "features", "tokenizer")
    assert jobs_of(project, lambda: snakemake(project, *first)) == {"features": 3, "tokenizers": 1}
    rest = job_counts(run(project, *SNAKEMAKE, "-n"))
    assert rest == {
        **{"train_model": 2, "decode_run": 2, "score_run": 2},
        **{"table_encoders": 1, "make_report": 1, "all": 1, "total": 9},
    }
    changed = json.loads(call(project, "dvc", "params", "diff", "--json"))
    assert changed == {SCALE_FILE: {"features.mels": {"old": 20, "new": 24, "diff": 4}}}


def test_a_raised_stage_version_remakes_that_stage_and_what_is_below(project: Path) -> None:
    edit(project / "src/lightasr/jobs.py", '    "decode": 2,', '    "decode": 3,')
    said: list[str] = []
    made = jobs_of(project, lambda: said.append(snakemake(project)))
    assert made == {"decode": 2, "score": 2}
    assert "table_encoders" in said[0]
    assert "make_report" in said[0]


def test_damaged_results_are_named_and_made_again(project: Path) -> None:
    (hypotheses,) = project.glob("results/decode/gru-*/test-clean.greedy.tsv")
    text = hypotheses.read_text()
    hypotheses.write_text(text[:-2] + ("A\n" if text[-2] != "A" else "B\n"))
    (receipt,) = project.glob("results/score/lstm-*/run.json")
    receipt.write_text("no receipt")
    damaged = {"results/decode", "results/score"}
    status = json.loads(call(project, "dvc", "status", "--json"))
    changes = [change for stage in status.values() for change in stage]
    assert {out for change in changes for out in change.get("changed outs", ())} == damaged
    said: list[str] = []
    made = jobs_of(project, lambda: said.append(call(project, "dvc", "repro")))
    assert made == {"decode": 1, "score": 1}
    folder = hypotheses.parent.relative_to(project)
    assert f"{folder}: test-clean.greedy.tsv has other content than it was made with" in said[0]
    assert f"{receipt.parent.relative_to(project)}: run.json is not a receipt" in said[0]
    assert json.loads(call(project, "dvc", "status", "--json")) == {}


def test_a_damaged_store_is_refused_and_a_damaged_cache_is_noticed(
    origin: Path, project: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(origin.parent / "store", store)
    (weights,) = project.glob("results/train/gru-*/model.safetensors")
    call(project, "dvc", "remote", "modify", "--local", "store", "url", str(store))
    digest = hashlib.md5(weights.read_bytes()).hexdigest()
    for files in (store / "files", project / ".dvc/cache/files"):
        entry = files / "md5" / digest[:2] / digest[2:]
        entry.chmod(0o644)
        entry.write_bytes(entry.read_bytes()[:-1] + b"?")
        entry.chmod(0o444)
    shutil.rmtree(project / "results/train")
    call(project, "dvc", "checkout", "results/train")
    verified = run(project, "lightasr", "verify", "--all", "train")
    assert verified.returncode == 1
    assert f"{weights.parent.name}: model.safetensors has other content" in verified.stdout
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(project / "results/train")
    assert run(project, "dvc", "pull", "results/train").returncode != 0
    assert not weights.exists()


def start(project: Path, *command: str) -> subprocess.Popen[str]:
    """A command in a process group of its own, which can be killed as by a power cut."""
    return subprocess.Popen(
        command,
        cwd=project,
        env=environment(project),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, "it ended early"
        time.sleep(0.1)
    raise AssertionError("waited for two minutes")


def test_a_second_call_says_who_is_at_work_and_a_killed_one_goes_on(project: Path) -> None:
    edit(project / SCALE_FILE, "epochs: 2", "epochs: 10")
    first = start(project, "dvc", "repro", "train")
    try:
        wait_for(lambda: list(project.glob("checkpoints/train/*/last.pt")), first)
        os.killpg(first.pid, signal.SIGSTOP)  # or it might be done before the others have asked
        (record,) = (project / ".snakemake/at-work").glob("*/lock")
        working = json.loads(record.read_text())
        refused = run(project, *SNAKEMAKE)
        assert refused.returncode == 1
        assert f"process {working['pid']} on {working['host']}" in refused.stderr
        refused = run(project, "dvc", "repro", "train")
        assert refused.returncode != 0
        assert f"PID {first.pid}" in refused.stderr
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    before = receipts(project)
    assert jobs_of(project, lambda: call(project, "dvc", "repro", "train")) == {"train": 2}
    made = [json.loads(text) for name, text in receipts(project).items() if name not in before]
    assert 2 in [receipt["attempts"] for receipt in made]


def test_an_experiment_of_dvc_sets_a_value_and_runs_what_it_changes(project: Path) -> None:
    setting = f"{SCALE_FILE}:score.bootstrap_samples=200"
    command = ["dvc", "exp", "run", "--name", "quick", "--set-param", setting]
    made = jobs_of(project, lambda: call(project, *command, "--downstream", "score"))
    assert made == {"score": 2}
    shown = call(project, "dvc", "exp", "show", "--csv")
    assert "quick" in shown
    changed = json.loads(call(project, "dvc", "exp", "diff", "--json"))
    assert changed["params"][SCALE_FILE]["score.bootstrap_samples"]["new"] == 200


def test_an_s3_server_keeps_what_another_clone_pulls(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="lab")
        call(project, "dvc", "remote", "add", "--default", "s3", "s3://lab/lightasr")
        call(project, "dvc", "remote", "modify", "s3", "endpointurl", url)
        commit(project, "Keep data on S3")
        call(project, "dvc", "push")
        other = clone(project, tmp_path / "other")
        call(other, "dvc", "pull")
        assert receipts(other) == receipts(project)
        assert call(other, "dvc", "repro").count(SKIPPED) == STAGES
    finally:
        server.stop()


@pytest.mark.slow
def test_the_status_of_a_thousand_runs_takes_less_than_thirty_seconds(project: Path) -> None:
    for stage in ("train", "decode", "score"):
        (model,) = (project / "results" / stage).glob("gru-*")
        for number in range(1000):
            shutil.copytree(model, model.with_name(f"gru-{number:010x}"))
            (model.with_name(f"gru-{number:010x}") / "config.json").write_text(str(number))
    call(project, "dvc", "commit", "--force")
    started = time.monotonic()
    assert "up to date" in call(project, "dvc", "status")
    assert time.monotonic() - started < 30
