"""The README is true: what it names exists, what it prints is what the workflow wrote."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from lightasr.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_every_command_is_named_and_no_other() -> None:
    section = README.split("## Commands")[1].split("## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    named = {name for line in table for name in re.findall(r"`([a-z-]+)`", line.split("|")[1])}
    assert named == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = {re.split(r"[\[=<>~!]", line)[0] for line in project["dependencies"]}
    section = README.split("## Dependencies")[1]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")][2:]
    named = {name.split()[0] for row in rows for name in row.split(",")}
    assert named == direct


def test_the_table_is_the_committed_one() -> None:
    table = (ROOT / "results/tables/sample/encoders.md").read_text(encoding="utf-8")
    for line in table.splitlines():
        assert line in README
