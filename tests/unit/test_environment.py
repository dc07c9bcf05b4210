"""The files that describe the environment agree: project, lock, conda, Makefile, lmplz pins."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKED_EXTRAS = ("build", "dev")


def read_project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read_pins(name: str) -> dict[str, list[Requirement]]:
    """Package -> its pins; several where the pin differs between platforms or Python versions."""
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / name).read_text().splitlines():
        line = line.removesuffix("\\").strip()
        if line and not line.startswith(("#", "-")):
            requirement = Requirement(line)
            pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


def read_environment() -> list[Any]:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def pinned_version(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"requirements.lock does not pin {requirement}"
    return specifier.version


def direct_dependencies() -> list[Requirement]:
    project = read_project()
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [line for name in LOCKED_EXTRAS for line in extras[name]]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("dependency", direct_dependencies(), ids=lambda d: d.name)
def test_lock_holds_every_direct_dependency_at_an_admitted_version(dependency: Requirement) -> None:
    pins = read_pins("requirements.lock").get(canonicalize_name(dependency.name))
    assert pins, f"{dependency.name} is not in requirements.lock: run `make lock`"
    for pin in pins:
        version = pinned_version(pin)
        assert dependency.specifier.contains(version), f"locked {version}, wanted {dependency}"


def test_lock_pins_everything_it_names() -> None:
    for pins in read_pins("requirements.lock").values():
        for pin in pins:
            pinned_version(pin)


def test_lock_names_no_host_and_no_local_path() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    # A package line is `name[extra]==version ; marker`, a comment names the files and packages that
    # asked for it: neither has a place for a URL, an option, or a folder.
    assert [line for line in lines if re.search(r"://|@|^-|/", line)] == []


@pytest.mark.parametrize("package", ["torch", "torchaudio"])
def test_torch_and_torchaudio_have_one_version(package: str) -> None:
    project = {requirement.name: requirement for requirement in direct_dependencies()}
    locked = [pinned_version(pin) for pin in read_pins("requirements.lock")[package]]
    assert locked == [pinned_version(project["torch"])]
    assert pinned_version(project[package]) == locked[0]


def test_environment_yml_has_the_python_range_of_the_project() -> None:
    (python,) = [
        Requirement(line)
        for line in read_environment()
        if isinstance(line, str) and line.startswith("python")
    ]
    assert python.specifier == SpecifierSet(read_project()["requires-python"])


def test_environment_yml_installs_the_lock_and_the_project() -> None:
    (pip,) = [line["pip"] for line in read_environment() if isinstance(line, dict)]
    assert pip == ["-r requirements.lock", "-e ."]


def test_environment_yml_pins_no_package_a_second_time() -> None:
    conda = {re.split(r"[<>=]", line)[0] for line in read_environment() if isinstance(line, str)}
    assert conda.isdisjoint(read_pins("requirements.lock"))


def test_makefile_accepts_the_python_versions_of_the_project() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (line,) = re.findall(r"^PYTHON_VERSIONS := (.*)$", makefile, flags=re.MULTILINE)
    supported = SpecifierSet(read_project()["requires-python"])
    admitted = {f"3.{minor}" for minor in range(100) if supported.contains(f"3.{minor}")}
    assert set(line.split()) == admitted


def test_lmplz_and_the_module_that_reads_its_models_are_one_release() -> None:
    assert read_pins("tools/lmplz.txt")["kenlm"] == read_pins("requirements.lock")["kenlm"]
