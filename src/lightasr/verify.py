"""Whether what lies on the disk is still what was made: files against their job's receipt.

A receipt lists the files of its directory with their sizes and digests. Its own age says when they
were last compared, so that reading them again is needed only where something was written since.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lightasr.errors import LightasrError
from lightasr.invalid import nearest
from lightasr.jobs import ROOTS, STAGES
from lightasr.plan import Plan
from lightasr.progress import track

RECEIPT = "run.json"
DIGEST_BYTES = 16


class Compare(Enum):
    """How much of a directory is read."""

    SIZES = "sizes"
    WRITTEN_SINCE = "written since"
    EVERYTHING = "everything"


@dataclass(frozen=True)
class Damage:
    """A finished directory that is not what was made."""

    folder: Path
    reason: str


def fingerprints(folder: Path) -> dict[str, dict[str, Any]]:
    """Sizes and digests of all files of a directory, for its receipt."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "blake2b": content_digest(path),
        }
        for path in files
    }


def content_digest(path: Path) -> str:
    with path.open("rb") as stream:
        whole = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES))
    return whole.hexdigest()


def read_receipt(path: Path) -> dict[str, Any] | None:
    """What a job left to say that it is done; None where the file is something else."""
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # neither JSON nor even text
        return None
    return receipt if isinstance(receipt, dict) and "source_digest" in receipt else None


def damage(folder: Path, compare: Compare = Compare.WRITTEN_SINCE) -> str | None:
    """Why a finished directory is not what was made; None where it is."""
    path = folder / RECEIPT
    receipt = read_receipt(path)
    if receipt is None:
        return f"{RECEIPT} is not a receipt"
    compared = path.stat().st_mtime_ns
    latest = compared
    for name, made in receipt.get("files", {}).items():
        try:
            found = (folder / name).stat()
        except FileNotFoundError:
            return f"{name} is missing"
        if found.st_size != made["bytes"]:
            return f"{name} has {found.st_size:,} bytes, was made with {made['bytes']:,}"
        written_since = found.st_mtime_ns > compared
        if compare == Compare.EVERYTHING or (compare == Compare.WRITTEN_SINCE and written_since):
            if content_digest(folder / name) != made["blake2b"]:
                return f"{name} has other content than it was made with"
            latest = max(latest, found.st_mtime_ns)
    if latest > compared:
        # Another user's, or read-only: then it is read again the next time.
        with contextlib.suppress(OSError):
            os.utime(path, ns=(latest, latest))
    return None


def finished(project: Path, stages: Iterable[str]) -> list[Path]:
    """Every directory of these stages with a receipt, whichever experiment it is of."""
    receipts = (project / ROOTS[stage] for stage in stages)
    return [path.parent for root in receipts for path in sorted(root.glob(f"*/{RECEIPT}"))]


def check_stages(names: list[str] | None) -> list[str]:
    """The stages that were asked for, or all."""
    for name in names or ():
        if name not in STAGES:
            raise LightasrError(f"no stage '{name}'{nearest(name, list(STAGES))}")
    return list(names or STAGES)


def not_made(plan: Plan, stages: Iterable[str]) -> list[Path]:
    """The directories that the plan asks for and that are not there; those of the stages are."""
    for stage in stages:
        # DVC wants the directory of every stage, also where a plan has no job of it.
        (plan.project / ROOTS[stage]).mkdir(parents=True, exist_ok=True)
    jobs = [job for stage in stages for job in plan.of_stage(stage)]
    return [plan.project / job.dir for job in jobs if not job.done(plan.project)]


def find_damage(folders: list[Path], compare: Compare) -> list[Damage]:
    """Those of some finished directories that are not what was made."""
    found = []
    with track("verify", len(folders), quiet=compare != Compare.EVERYTHING) as bar:
        for folder in folders:
            if (reason := damage(folder, compare)) is not None:
                found.append(Damage(folder, reason))
            bar.update()
    return found


def discard(found: Iterable[Damage]) -> None:
    """Let the workflow make directories again: without a receipt they count as not made."""
    for damaged in found:
        (damaged.folder / RECEIPT).unlink()


def damage_json(
    folders: list[Path], found: list[Damage], missing: list[Path] | None
) -> dict[str, Any]:
    """What was compared, what is damaged, and what of the plan is missing, for programs."""
    damaged = [{"directory": str(entry.folder), "reason": entry.reason} for entry in found]
    told = {"directories": len(folders), "damaged": damaged}
    return told if missing is None else told | {"missing": [str(folder) for folder in missing]}


def damage_text(
    folders: list[Path], found: list[Damage], discarded: bool, missing: list[Path] | None
) -> str:
    """The same for a person."""
    lines = [f"{entry.folder}: {entry.reason}" for entry in found]
    if found:
        then = "the workflow makes them again" if discarded else "discard them with `--discard`"
        lines.append(f"{len(found)} of {len(folders)} directories damaged: {then}.")
    else:
        lines.append(f"{len(folders)} of {len(folders)} directories are as they were made.")
    if missing is not None:
        directories = "directory" if len(missing) == 1 else "directories"
        lines.append(f"{len(missing) or 'No'} {directories} of the plan to be made.")
    return "\n".join(lines)
