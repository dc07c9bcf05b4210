"""The command line: its names, its help, what it says of a plan, and how it refuses."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from lightasr import cli
from lightasr.editor_schema import json_schema
from lightasr.jobs import STAGES
from lightasr.overview import SHOWN_ROWS
from lightasr.plan import load_plan
from lightasr.stage import source_digest
from planning import files_below, finish, write_study


def commands(group: Any, path: str = "") -> Iterator[str]:
    """The name of every command, those of a group after the group's."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


COMMANDS = sorted(commands(typer.main.get_command(cli.app)))


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class CommandLine:
    """`lightasr ...` in this process: what `main` prints, and what it exits with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> Outcome:
        self.monkeypatch.setattr("sys.argv", ["lightasr", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = self.capsys.readouterr()
        return Outcome(int(end.value.code or 0), out, err)


@pytest.fixture
def lightasr(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    monkeypatch.chdir(project)
    return CommandLine(monkeypatch, capsys)


def test_the_names_of_the_commands_stay() -> None:
    """Scripts and the workflow's rules call them: a new one is added here, none goes."""
    assert COMMANDS == [
        "bench data",
        "bench decoder",
        "bench encoders",
        "bench features",
        "bench kernels",
        "bench plan",
        "bench pretraining",
        "bench train",
        "bench units",
        "cluster",
        "compare",
        "cost",
        "data report",
        "data split",
        "decode",
        "evaluate",
        "features",
        "fetch",
        "gc",
        "labels",
        "lm",
        "measure",
        "neural-lm",
        "plan",
        "pretrain",
        "probe",
        "report",
        "schema",
        "score",
        "status",
        "tables",
        "tokenizer",
        "train",
        "transcribe",
        "verify",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example(lightasr: CommandLine, name: str) -> None:
    shown = lightasr(*name.split(), "--help")
    assert shown.code == 0
    assert f"lightasr {name}" in " ".join(shown.out.split()).split("Example:", 1)[1]


def test_without_a_command_there_is_help(lightasr: CommandLine) -> None:
    shown = lightasr()
    assert all(name.split()[0] in shown.out + shown.err for name in COMMANDS)


def test_the_plan_as_text(lightasr: CommandLine, project: Path) -> None:
    plan = load_plan(project, "smoke")
    finish(plan, plan.of_stage("archive"))
    shown = lightasr("plan", "--scale", "smoke")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == "scale smoke"
    assert lines[2].startswith("encoders: ")
    gru = next(experiment for experiment in plan.experiments if experiment.name == "gru")
    assert f"  gru          1     {gru.runs[0].train.id}" in shown.out
    assert "archive    5     5     0" in shown.out
    assert lines[-1] == (
        "New: 18 jobs (4 features, 1 tokenizer, 1 lm, 4 train, 4 decode, 4 score)."
    )
    assert max(map(len, lines)) <= 80


def test_the_plan_says_what_is_left_of_a_run(lightasr: CommandLine, project: Path) -> None:
    plan = load_plan(project, "smoke")
    finish(plan, [job for job in plan.jobs.values() if job.stage != "score"])
    lines = lightasr("plan", "--scale", "smoke").out.splitlines()
    assert [line.split()[3:] for line in lines[4:8]] == [["score"]] * 4
    finish(plan)
    lines = lightasr("plan", "--scale", "smoke").out.splitlines()
    assert [line.split()[3:] for line in lines[4:8]] == [["-"]] * 4
    assert lines[-1] == "Nothing is new: every job is done."


def test_verify_fails_where_the_plan_lacks_something_if_asked(
    lightasr: CommandLine, project: Path
) -> None:
    plan = load_plan(project, "smoke")
    finish(plan, plan.of_stage("train"))
    assert lightasr("verify", "decode").code == 0
    asked = ("verify", "--planned", "--scale", "smoke")
    assert lightasr(*asked, "train").code == 0
    refused = lightasr(*asked, "train", "decode")
    assert refused.code == 1
    assert refused.out.splitlines()[-1] == "4 directories of the plan to be made."
    told = json.loads(lightasr(*asked, "--json", "decode").out)
    assert told["missing"] == [job.dir for job in plan.of_stage("decode")]


def test_a_long_plan_is_cut_and_says_so(lightasr: CommandLine, project: Path) -> None:
    write_study(project, experiments={"lr": {"grid": {"train.epochs": [*range(1, 251)]}}})
    lines = lightasr("plan", "--scale", "smoke", "--study", "mine").out.splitlines()
    assert sum("lr[train.epochs=" in line for line in lines) == SHOWN_ROWS
    assert "  ... and 50 more; --json lists all" in lines
    assert lines[-1].startswith("New: 761 jobs (")


def test_the_plan_for_programs(lightasr: CommandLine, project: Path) -> None:
    plan = load_plan(project, "smoke")
    lstm = next(experiment for experiment in plan.experiments if experiment.name == "lstm")
    finish(plan, [lstm.runs[0].train])
    tree = json.loads(lightasr("plan", "--scale", "smoke", "--json").out)
    assert tree["scale"] == "smoke"
    assert [job["id"] for job in tree["jobs"]] == list(plan.jobs)
    run = tree["experiments"][0]["runs"][0]
    assert run["train"] == {"dir": lstm.runs[0].train.dir, "done": True}
    assert run["score"] == {"dir": lstm.runs[0].score.dir, "done": False}
    assert tree["experiments"][0]["config"]["features"]["mels"] == lstm.config.features.mels


def test_the_status_lists_results_of_other_source(lightasr: CommandLine, project: Path) -> None:
    plan = load_plan(project, "smoke")
    current, other, *_ = plan.of_stage("archive")
    finish(plan, [current], source_digest=source_digest())
    finish(plan, [other], source_digest="5ca1ab1e")
    shown = lightasr("status", "--scale", "smoke")
    told = shown.out.split("made by other source than the current:\n")[1]
    assert told == f"  archive  {other.id}  5ca1ab1e\n"
    tree = json.loads(lightasr("status", "--scale", "smoke", "--json").out)
    assert tree["other_source"] == [
        {"stage": "archive", "id": other.id, "source_digest": "5ca1ab1e"}
    ]
    assert tree["stages"]["archive"] == {"jobs": 5, "done": 2}
    assert list(tree["stages"]) == list(STAGES)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null"])
def test_the_status_names_a_receipt_that_is_none(
    lightasr: CommandLine, project: Path, text: str
) -> None:
    plan = load_plan(project, "smoke")
    job = plan.of_stage("archive")[0]
    finish(plan, [job])
    (project / job.receipt).write_text(text)
    assert job.receipt in lightasr("status", "--scale", "smoke").out


def test_the_status_of_an_interrupted_job(lightasr: CommandLine, project: Path) -> None:
    job = load_plan(project, "smoke").of_stage("train")[0]
    work = project / "checkpoints" / "train" / job.id
    work.mkdir(parents=True)
    gone = {"host": socket.gethostname(), "pid": 2**22 + 1, "started": "1", "job": None}
    (work / "lock").write_text(json.dumps(gone))
    shown = lightasr("status", "--scale", "smoke").out
    assert f"interrupted, goes on when run again:\n  train  {job.id}" in shown
    assert "being made now" not in shown


def test_every_mistake_is_a_line_and_nothing_is_written(
    lightasr: CommandLine, project: Path
) -> None:
    write_study(
        project,
        experiments={"a": {"train": {"lr": "fast"}}, "b": {"model": {"encoder": {"dimm": 96}}}},
    )
    before = files_below(project)
    for command in (["plan"], ["train", "a"], ["report"]):
        shown = lightasr(*command, "--scale", "smoke", "--study", "mine")
        assert shown.code == 1
        assert shown.out == ""
        first, second = shown.err.splitlines()
        assert first.startswith("lightasr: config/studies/mine.yaml: a: train.lr: ")
        assert second.startswith("lightasr: config/studies/mine.yaml: b: model.encoder.dimm: ")
    assert files_below(project) == before


def test_a_stage_says_what_it_needs_first(lightasr: CommandLine) -> None:
    shown = lightasr("train", "lstm", "--scale", "smoke")
    assert shown.code == 1
    assert "needs features train-clean-100-fbank-" in shown.err
    assert "snakemake" in shown.err


def test_outside_of_a_project_it_says_so(
    lightasr: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = lightasr("plan")
    assert shown.code == 1
    assert shown.err == (
        "lightasr: no config/config.yaml here or above: run this inside the project\n"
    )


def test_a_folder_of_the_project_will_do(
    lightasr: CommandLine, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "config" / "studies")
    assert lightasr("plan", "--scale", "smoke").code == 0


def test_the_schema_is_printed_or_written(lightasr: CommandLine, project: Path) -> None:
    assert json.loads(lightasr("schema").out) == json_schema()
    (project / "config" / "schema.json").unlink()
    assert lightasr("schema", "--write").code == 0
    assert json.loads((project / "config" / "schema.json").read_text()) == json_schema()
