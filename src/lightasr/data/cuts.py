"""A folder of features: what its files are called, and its manifest line by line.

Plain JSON rather than lhotse, whose import alone takes longer than reading most manifests.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from lightasr.errors import LightasrError

CUTS = "cuts.jsonl.gz"
FEATURES = "feats.lca"
SPEAKERS = "speakers.json"


def named(name: str, speed: float) -> str:
    """An utterance or a speaker at another speed has a name of its own."""
    return name if speed == 1 else f"{name}-x{speed:g}"


def read_cuts(features: Path, copies: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each utterance of a folder of features stands, and lhotse's record of it.

    `copies` are those at other speeds.
    """
    path = features / CUTS
    try:
        with io.BufferedReader(gzip.open(path)) as lines:
            for number, line in enumerate(lines, start=1):
                cut = _cut(line, where := f"{path}:{number}")
                if copies or "speed" not in (cut.get("custom") or {}):
                    yield where, cut
    except FileNotFoundError:
        raise LightasrError(f"{path}: no such file; run the stage `features` first") from None
    except (OSError, EOFError, zlib.error) as error:
        raise LightasrError(f"{path}: not readable: {error}") from error


def _cut(line: bytes, where: str) -> dict[str, Any]:
    try:
        cut = from_json(line)  # twice as fast as `json`
    except ValueError as error:
        raise LightasrError(f"{where}: expected a cut as a line of JSON ({error})") from None
    if not isinstance(cut, dict):
        found = line.decode(errors="replace").strip()[:40]
        raise LightasrError(f"{where}: expected a cut as a line of JSON, found {found}")
    return cut
