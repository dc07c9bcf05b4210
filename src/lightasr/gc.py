"""Finds what no experiment refers to, and removes it when asked: `lightasr gc`.

Judged by every study at every scale. Where that cannot tell whose an output is, the output stays.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from lightasr.datasets import Datasets
from lightasr.errors import LightasrError, RetryError
from lightasr.jobs import ROOTS, STAGES, Job, digest
from lightasr.lock import locked, read_holder
from lightasr.plan import Plan, load_plan, load_scale

KEYED = re.compile(r"(?P<label>.+)-[0-9a-f]{10}")
HALF = re.compile(r"\.(?P<id>.+-[0-9a-f]{10})\.(?:part|gone)")
OUT_OF_REACH = "out of reach"
SHOWN_ROWS = 200


class Verdict(StrEnum):
    """Why something is removed, or why it stays."""

    UNUSED = "no experiment refers to"
    HALF_MADE = "half-made or half-removed, by a process that is gone"
    CHECKPOINT = "checkpoints of finished runs"
    BUSY = "kept: being made, or may be read by what is being made"
    DOUBT = "kept: may be of recordings whose manifests are out of reach"
    UNKNOWN = "left alone: not of lightasr's making"


REMOVED = (Verdict.UNUSED, Verdict.HALF_MADE, Verdict.CHECKPOINT)


@dataclass(frozen=True)
class Found:
    """A directory or a file, and what becomes of it."""

    path: Path
    """In the project."""
    verdict: Verdict
    job: tuple[str, str] | None = None
    """Stage and id of the job that it is of."""
    by: str | None = None
    """Who holds that job's lock."""
    bytes: int = 0
    changed: float = 0.0


class _Corpora(Datasets):
    """Corpora of which manifests may be out of reach, on a disk that is not there, say."""

    def content(self, name: str, part: str) -> str:
        try:
            return super().content(name, part)
        except LightasrError:
            return self.digests.setdefault(self.path(name, part), OUT_OF_REACH)


@dataclass
class References:
    """All that experiments refer to."""

    scales: list[str]
    studies: list[str]
    jobs: dict[tuple[str, str], Job] = field(default_factory=dict)
    """By stage and id."""
    unsure: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """Of jobs whose key is not known: digests of their configurations, by stage and label."""

    def add(self, plan: Plan) -> None:
        unsure: set[str] = set()
        for job in plan.jobs.values():
            inputs = {upstream.id for upstream in job.inputs.values()}
            if job.config.get("content") == OUT_OF_REACH or inputs & unsure:
                unsure.add(job.id)
                self.unsure[job.stage, job.label].add(_digest(job.config))
            else:
                self.jobs[job.stage, job.id] = job

    def may_be(self, project: Path, stage: str, job_id: str) -> bool:
        """Whether it may be the output of a job whose key is not known."""
        matched = KEYED.fullmatch(job_id)
        digests = self.unsure.get((stage, matched["label"])) if matched else None
        if not digests or (stage, job_id) in self.jobs:
            return False
        root = project / ROOTS[stage]
        folders = (root / job_id, root / f".{job_id}.part", _work(project, (stage, job_id)))
        for folder in folders:
            if isinstance(config := _read_json(folder / "config.json"), dict):
                return _digest(config) in digests
        return any(folder.exists() for folder in folders)  # else there is its log alone


def _digest(config: dict[str, Any]) -> str:
    return digest({key: value for key, value in config.items() if key != "content"})


def find_references(project: Path, keep: list[str] | None = None) -> References:
    """Plan every study at every scale (or at those to keep); any mistake is an error."""
    config = project / "config"
    studies = sorted(path.stem for path in (config / "studies").glob("*.yaml"))
    scales = keep or sorted(path.stem for path in (config / "scales").glob("*.yaml"))
    for scale in keep or ():
        load_scale(config, scale)  # that there is one of this name
    references = References(scales, studies)
    mistakes: dict[str, list[str]] = defaultdict(list)
    for scale in scales:
        try:
            references.add(load_plan(project, scale, studies, corpora=_Corpora, tables=False))
        except LightasrError as error:
            for line in str(error).splitlines():
                mistakes[line].append(scale)
    if mistakes:
        lines = [
            line if len(at) == len(scales) else f"{line} (at scale {', '.join(at)})"
            for line, at in mistakes.items()
        ]
        lines.append(
            "so it is not known what experiments refer to, and nothing is removed: mend that, "
            "or name the scales to keep with `--keep`"
        )
        raise LightasrError("\n".join(lines))
    return references


# --- what there is ------------------------------------------------------------------------------


def find_unused(project: Path, references: References) -> list[Found]:
    """What may be removed, and what stays although no experiment refers to it."""
    found = [
        *(one for stage in STAGES for one in _outputs(project, stage, references)),
        *(one for stage in STAGES for one in _checkpoints(project, stage, references)),
        *(one for stage in STAGES for one in _logs(project, stage, references)),
        *_logits(project, references),
        *_tables(project, references),
        *_reports(project, references),
    ]
    return [_measured(project, one) for one in _without_busy(project, found, references)]


def _outputs(project: Path, stage: str, references: References) -> Iterator[Found]:
    for path in _listed(project / ROOTS[stage]):
        if (half := HALF.fullmatch(path.name)) and _is_folder(path):
            doubt = path.suffix == ".part" and references.may_be(project, stage, half["id"])
            yield Found(path, Verdict.DOUBT if doubt else Verdict.HALF_MADE, (stage, half["id"]))
        elif not (_is_folder(path) and KEYED.fullmatch(path.name) and _is_output(path)):
            yield Found(path, Verdict.UNKNOWN)
        elif (stage, path.name) not in references.jobs:
            yield _unused(project, path, (stage, path.name), references)


def _checkpoints(project: Path, stage: str, references: References) -> Iterator[Found]:
    for path in _listed(project / "checkpoints" / stage):
        if (half := HALF.fullmatch(path.name)) and _is_folder(path):
            yield Found(path, Verdict.HALF_MADE, (stage, half["id"]))
        elif not (_is_folder(path) and KEYED.fullmatch(path.name)):
            yield Found(path, Verdict.UNKNOWN)
        elif (job := references.jobs.get((stage, path.name))) is None:
            yield _unused(project, path, (stage, path.name), references)
        elif job.done(project):
            yield Found(path, Verdict.CHECKPOINT, (stage, path.name))


def _logs(project: Path, stage: str, references: References) -> Iterator[Found]:
    for path in _listed(project / "logs" / stage):
        if path.suffix != ".log" or not KEYED.fullmatch(path.stem):
            yield Found(path, Verdict.UNKNOWN)
        elif (stage, path.stem) not in references.jobs:
            yield _unused(project, path, (stage, path.stem), references)


def _logits(project: Path, references: References) -> Iterator[Found]:
    """What models say of the held-out parts, kept for searches; a folder for each model."""
    for path in _listed(project / "checkpoints" / "logits"):
        if not (_is_folder(path) and KEYED.fullmatch(path.name)):
            yield Found(path, Verdict.UNKNOWN)
        elif ("train", path.name) not in references.jobs:
            yield _unused(project, path, ("train", path.name), references)


def _unused(project: Path, path: Path, job: tuple[str, str], references: References) -> Found:
    doubt = references.may_be(project, *job)
    return Found(path, Verdict.DOUBT if doubt else Verdict.UNUSED, job)


def _is_output(path: Path) -> bool:
    """Not something of a user's own that happens to be called `<word>-<ten digits>`."""
    receipt = _read_json(path / "run.json")
    if isinstance(receipt, dict) and "key" in receipt:
        return path.name == f"{receipt.get('label')}-{receipt['key']}"
    marks = (path / "run.json", path / "config.json")
    return any(mark.exists() for mark in marks) or not any(path.iterdir())


def _tables(project: Path, references: References) -> Iterator[Found]:
    """Those of a study or a scale that is gone, with what DVC shows of them."""
    results = project / "results"
    for folder in _listed(results / "tables"):
        scale, stamps = folder.name, _stamps(folder, "study")
        known = {*references.studies} if scale in references.scales else set()
        for kind in (results / "metrics", *_listed(results / "plots")):
            for path in _listed(kind / scale):
                if path.stem in {*stamps.values()} - known:
                    yield Found(path, Verdict.UNUSED)
        names = {path: stamps.get(path, path.stem) for path in _listed(folder)}
        yield from _vouched(names, stamps, known)
    pairs = {f"{scale}-{study}" for scale in references.scales for study in references.studies}
    yield from _named_logs(project / "logs" / "tables", pairs)


def _reports(project: Path, references: References) -> Iterator[Found]:
    """Pages of a scale that is gone."""
    folder, known = project / "results" / "report", {*references.scales}
    stamps = _stamps(folder, "scale")
    scales = known | {*stamps.values()}
    pages = {f"{prefix}{scale}": scale for prefix in ("data-", "") for scale in scales}
    names = {path: stamps.get(path) or pages.get(path.stem, "") for path in _listed(folder)}
    yield from _vouched(names, stamps, known)
    yield from _named_logs(project / "logs" / "report", known)


def _stamps(folder: Path, kind: str) -> dict[Path, str]:
    """The files `<name>-<key>.json` that say of which study or scale the others are."""
    trees = {
        path: _read_json(path)
        for path in _listed(folder)
        if path.suffix == ".json" and KEYED.fullmatch(path.stem)
    }
    return {
        path: tree[kind] for path, tree in trees.items() if isinstance(tree, dict) and kind in tree
    }


def _vouched(names: dict[Path, str], stamps: dict[Path, str], known: set[str]) -> Iterator[Found]:
    # Stamps go last: without them nobody knows what the others are.
    for path, name in sorted(names.items(), key=lambda item: item[0] in stamps):
        if name not in known:
            vouched = name in stamps.values()
            yield Found(path, Verdict.UNUSED if vouched else Verdict.UNKNOWN)


def _named_logs(folder: Path, known: set[str]) -> Iterator[Found]:
    for path in _listed(folder):
        if path.suffix != ".log":
            yield Found(path, Verdict.UNKNOWN)
        elif path.stem not in known:
            yield Found(path, Verdict.UNUSED)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or not JSON
        return None


def _without_busy(project: Path, found: Sequence[Found], references: References) -> Iterator[Found]:
    """What a live process makes stays, and what may be an input of it."""
    holders: dict[tuple[str, str], str] = {}
    for job in {one.job for one in found if one.job is not None}:
        if by := read_holder(_work(project, job) / "lock"):
            holders[job] = by
    # What a job reads that is in no plan is not known, but it is of earlier stages.
    readers = [
        STAGES.index(stage) for stage, name in holders if (stage, name) not in references.jobs
    ]
    for one in found:
        if one.verdict not in REMOVED or one.job is None:
            yield one
        elif one.job in holders:
            yield replace(one, verdict=Verdict.BUSY, by=holders[one.job])
        elif one.verdict == Verdict.UNUSED and STAGES.index(one.job[0]) < max(readers, default=0):
            yield replace(one, verdict=Verdict.BUSY)
        else:
            yield one


def _work(project: Path, job: tuple[str, str]) -> Path:
    return project / "checkpoints" / job[0] / job[1]


def _measured(project: Path, found: Found) -> Found:
    """With its size and the time of its last change."""
    paths = [Path(at) / name for at, _, names in os.walk(found.path) for name in names]
    states = [state for path in paths or [found.path] if (state := _state(path)) is not None]
    return replace(
        found,
        path=found.path.relative_to(project),
        bytes=sum(state.st_size for state in states if not stat.S_ISDIR(state.st_mode)),
        changed=max((state.st_mtime for state in states), default=time.time()),
    )


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:  # a live process has removed it
        return None


# --- removing -----------------------------------------------------------------------------------


def remove(project: Path, found: Sequence[Found]) -> list[Found]:
    """Remove what may be removed; returns all that was found, as it now is."""
    after = {one.path: one for one in found}
    # What says whose the rest is goes last: a job's directory, and the stamp of tables.
    of_jobs = [one for one in reversed(found) if one.job is not None]
    for one in (*of_jobs, *(one for one in found if one.job is None)):
        if one.verdict not in REMOVED:
            continue
        try:
            _remove(project, one)
        except RetryError as busy:  # begun since it was found
            after[one.path] = replace(one, verdict=Verdict.BUSY, by=str(busy))
        except FileNotFoundError:  # another `gc` was quicker
            continue
        except OSError as error:
            raise LightasrError(f"{one.path}: not removed: {error.strerror}") from None
    return list(after.values())


def _remove(project: Path, found: Found) -> None:
    """A directory is renamed first, so that no half of it is left under a name that counts."""
    path = project / found.path
    gone = path.with_name(f".{found.job[1]}.gone") if found.job else path
    if found.job is None or not _is_folder(path):
        path.unlink()
    elif path == gone:
        shutil.rmtree(path)
    else:
        work = _work(project, found.job)
        made = not work.exists()
        work.mkdir(parents=True, exist_ok=True)
        with locked(work, f"{found.job[0]} {found.job[1]}"):
            if gone.exists():
                shutil.rmtree(gone)
            path.rename(gone)
        if made:
            with suppress(OSError):  # a process that begins the job at this moment uses it
                work.rmdir()
        shutil.rmtree(gone)


# --- telling ------------------------------------------------------------------------------------


def found_json(found: Sequence[Found], references: References, removed: bool) -> dict[str, Any]:
    """What was found, by verdict, for programs."""
    now = time.time()
    return {
        "scales": references.scales,
        "studies": references.studies,
        "removed": removed,
        "bytes": _bytes(found),
        "found": [
            {
                "path": str(one.path),
                "verdict": one.verdict.name.lower(),
                "bytes": one.bytes,
                "age_seconds": round(max(0, now - one.changed)),
                "by": one.by,
            }
            for one in found
        ],
    }


def found_text(found: Sequence[Found], references: References, removed: bool) -> str:
    """The same for a person; 80 columns for usual names."""
    lines = []
    for verdict in Verdict:
        if group := [one for one in found if one.verdict == verdict]:
            lines += [f"{verdict}:", *_rows(group), ""]
    return "\n".join([*lines, _total(found, references, removed)])


def _rows(group: Sequence[Found]) -> Iterator[str]:
    shown = group[:SHOWN_ROWS]
    width = max(len(str(one.path)) for one in shown)
    for one in shown:
        yield f"  {one.path!s:{width}}  {_size(one.bytes):>8}  {_age(one.changed):>8}"
        if one.by is not None:
            yield f"    {one.by}"
    if len(group) > len(shown):
        yield f"  ... and {len(group) - len(shown)} more; --json lists all"


def _total(found: Sequence[Found], references: References, removed: bool) -> str:
    count = sum(one.verdict in REMOVED for one in found)
    if not count:
        at = f"{len(references.studies)} studies at {len(references.scales)} scales"
        return f"Nothing to remove: judged by {at}."
    what = f"{count} files and directories, {_size(_bytes(found))}"
    return f"Removed {what}." if removed else f"`--yes` removes {what}."


def _bytes(found: Sequence[Found]) -> int:
    return sum(one.bytes for one in found if one.verdict in REMOVED)


def _size(count: int) -> str:
    """As 12 kB, 1.5 MB or 2.0 GB."""
    if count < 1e6:
        return f"{count / 1e3:.0f} kB" if count >= 1e3 else f"{count} B"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def _age(changed: float) -> str:
    """Time since the last change, in its largest unit."""
    seconds = max(0.0, time.time() - changed)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "now"
