"""What `lightasr plan` and `lightasr status` tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightasr.jobs import STAGES, Job
from lightasr.lock import read_holder
from lightasr.plan import Plan
from lightasr.resources import foresee
from lightasr.stage import source_digest
from lightasr.verify import read_receipt

SHOWN_ROWS = 200


def plan_json(plan: Plan) -> dict[str, Any]:
    """Experiments with the jobs behind them, and whether each is done."""
    done = _done(plan)
    return {
        "scale": plan.scale,
        "experiments": [
            {
                "study": experiment.study,
                "name": experiment.name,
                "config": experiment.config.model_dump(mode="json"),
                "runs": [
                    {
                        "seed": run.seed,
                        **{job.stage: {"dir": job.dir, "done": done[job.id]} for job in run.jobs},
                    }
                    for run in experiment.runs
                ],
            }
            for experiment in plan.experiments
        ],
        "jobs": [
            {
                "stage": job.stage,
                "id": job.id,
                "dir": job.dir,
                "done": done[job.id],
                "inputs": {name: upstream.id for name, upstream in job.inputs.items()},
                "needs": foresee(job, plan.project)._asdict(),
            }
            for job in plan.jobs.values()
        ],
    }


def plan_text(plan: Plan) -> str:
    """A row a run, how many jobs each stage has, and what is new; 80 columns for usual names."""
    done = _done(plan)
    left = SHOWN_ROWS
    lines = [f"scale {plan.scale}", ""]
    for study in plan.studies:
        rows = [("  experiment", "seed", "run", "new")]
        for experiment in study.experiments:
            for run in experiment.runs:
                missing = " ".join(job.stage for job in run.jobs if not done[job.id])
                rows.append((f"  {experiment.name}", str(run.seed), run.train.id, missing or "-"))
        shown = rows[: left + 1]
        left -= len(shown) - 1
        lines += [f"{study.name}: {study.spec.title}", *aligned(shown)]
        if len(rows) > len(shown):
            lines.append(f"  ... and {len(rows) - len(shown)} more; --json lists all")
        lines.append("")
    return "\n".join([*lines, *_stage_lines(plan, done), "", _new_line(plan, done)])


def _new_line(plan: Plan, done: dict[str, bool]) -> str:
    counts = {stage: sum(not done[job.id] for job in plan.of_stage(stage)) for stage in STAGES}
    if not any(counts.values()):
        return "Nothing is new: every job is done."
    listed = ", ".join(f"{count} {stage}" for stage, count in counts.items() if count)
    total = sum(counts.values())
    return f"New: {total} job{'s' if total > 1 else ''} ({listed})."


def _stage_lines(plan: Plan, done: dict[str, bool]) -> list[str]:
    rows = [("stage", "jobs", "done", "new")]
    for stage in STAGES:
        jobs = plan.of_stage(stage)
        finished = sum(done[job.id] for job in jobs)
        rows.append((stage, str(len(jobs)), str(finished), str(len(jobs) - finished)))
    return aligned(rows)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns of text as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _done(plan: Plan) -> dict[str, bool]:
    return {job.id: job.done(plan.project) for job in plan.jobs.values()}


def status_json(plan: Plan) -> dict[str, Any]:
    """Counts by stage, what is being made, and results that other source made."""
    done = _done(plan)
    current = source_digest()
    other, broken = [], []
    for job in plan.jobs.values():
        if not done[job.id]:
            continue
        receipt = read_receipt(plan.project / job.receipt)
        if receipt is None:
            broken.append(job.receipt)
        elif (made_by := receipt["source_digest"]) != current:
            other.append({"stage": job.stage, "id": job.id, "source_digest": made_by})
    return {
        "scale": plan.scale,
        "source_digest": current,
        "stages": {
            stage: {
                "jobs": len(plan.of_stage(stage)),
                "done": sum(done[job.id] for job in plan.of_stage(stage)),
            }
            for stage in STAGES
        },
        "running": [
            {"stage": job.stage, "id": job.id, "by": by}
            for job in plan.jobs.values()
            if not done[job.id] and (by := _made_by(plan.project, job))
        ],
        "interrupted": [
            {"stage": job.stage, "id": job.id}
            for job in plan.jobs.values()
            if not done[job.id]
            and _work(plan.project, job).exists()
            and not _made_by(plan.project, job)
        ],
        "other_source": other,
        "unreadable": broken,
    }


def _work(project: Path, job: Job) -> Path:
    return project / "checkpoints" / job.stage / job.id


def _made_by(project: Path, job: Job) -> str | None:
    """Who holds the lock of a job's work directory; None when nobody does."""
    return read_holder(_work(project, job) / "lock")


def status_text(plan: Plan) -> str:
    """The same for a person."""
    status = status_json(plan)
    lines = [f"scale {plan.scale}, source {status['source_digest']}", ""]
    lines += _stage_lines(plan, _done(plan))
    for title, key in [
        ("being made now", "running"),
        ("interrupted, goes on when run again", "interrupted"),
        ("made by other source than the current", "other_source"),
    ]:
        if status[key]:
            lines += ["", f"{title}:"]
            entries = [tuple(str(value) for value in entry.values()) for entry in status[key]]
            lines += [f"  {line}" for line in aligned(entries)]
    if status["unreadable"]:
        lines += ["", "not a receipt; `lightasr verify --discard` lets it be made again:"]
        lines += [f"  {path}" for path in status["unreadable"]]
    return "\n".join(lines)
