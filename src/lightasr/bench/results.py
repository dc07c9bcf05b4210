"""Where benchmarks put what they measured: JSON for programs, tables and pictures for people."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightasr.cost.timing import Measured
from lightasr.files import write_atomically
from lightasr.stage import git_commit

# As a picture of its own it has no page to take its colour from.
INK_STYLE = (
    "<style>svg{color:#24292f}@media (prefers-color-scheme:dark){svg{color:#d0d7de}}</style>"
)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "git_commit": git_commit(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def write_results(
    name: str,
    title: str,
    rows: Sequence[Measured],
    json_out: Path,
    also: Mapping[str, str | float | None] | None = None,
    note: str = "",
    more: Mapping[str, Sequence[Measured]] | None = None,
) -> str:
    """Write `json_out` and the same as Markdown beside it; returns the table.

    `also` tells what the numbers depend on besides processor and versions, `note` what the columns
    mean; what is `more` than the rows goes to the JSON alone.
    """
    where = machine() | dict(also or {})
    named = [f"{key} {_cell(value)}" for key, value in (also or {}).items()]
    table = "\n".join(
        [
            f"# {title}",
            "",
            *markdown(rows),
            *(["", note] if note else []),
            "",
            f"Measured by `lightasr bench {name}` on {where['processor']}, {where['cores']} cores, "
            f"Python {where['python']}, torch {where['torch']}.",
            *(["", f"Here: {', '.join(named)}."] if named else []),
        ]
    )
    json_out.parent.mkdir(parents=True, exist_ok=True)
    tree = {"bench": name, "machine": where, "rows": list(rows), **(more or {})}
    write_atomically(json_out, json.dumps(tree, indent=1) + "\n")
    write_atomically(json_out.with_suffix(".md"), table + "\n")
    return table


def write_picture(svg: str, json_out: Path) -> None:
    """Write a figure beside the results."""
    picture = svg.replace(">", f">{INK_STYLE}", 1)
    write_atomically(json_out.with_suffix(".svg"), picture)


def markdown(rows: Sequence[Measured]) -> list[str]:
    """Aligned lines of a Markdown table."""
    names = list(rows[0])
    cells = [names, *[[_cell(row[name]) for name in names] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    return [lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]]


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
