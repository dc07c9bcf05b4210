"""Runs `snakemake --lint` and fails on any finding but the one that does not hold here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# Every rule runs in the one locked environment, which `make setup` and environment.yml make.
ALLOWED = {"Specify a conda environment or container for each rule."}
# Snakemake 9.27 prints text also for `--lint json`: a line for the rule or file, then one for each
# finding, with its explanation indented deeper.
SUBJECT = re.compile(r"^Lints for (?P<name>.+):$")
FINDING = re.compile(r"^    \* (?P<title>.+):$")


def main() -> int:
    snakemake = Path(sys.executable).with_name("snakemake")
    result = subprocess.run([snakemake, "--lint"], capture_output=True, text=True)
    if result.returncode == 0:
        return 0
    findings = parse(result.stderr)
    if not findings:
        # It failed with nothing to say about style: the workflow does not parse.
        print(result.stdout + result.stderr, file=sys.stderr)
        return 1
    unexpected = [f"{name}: {title}" for name, title in findings if title not in ALLOWED]
    print("\n".join(unexpected), end="\n" if unexpected else "")
    return 1 if unexpected else 0


def parse(report: str) -> list[tuple[str, str]]:
    """Each finding of a lint report as (rule or file, title)."""
    findings = []
    name = ""
    for line in report.splitlines():
        if subject := SUBJECT.match(line):
            name = subject["name"]
        elif finding := FINDING.match(line):
            findings.append((name, finding["title"]))
    return findings


if __name__ == "__main__":
    sys.exit(main())
