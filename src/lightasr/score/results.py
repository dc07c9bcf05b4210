"""Stages `tables` and `report`: from the plan's studies to the files a person reads."""

from __future__ import annotations

import json
from typing import Any

from lightasr.files import write_atomically
from lightasr.plan import Experiment, Plan, Study
from lightasr.planner import measured_digest, measured_model, measured_pretraining
from lightasr.score.metrics import write_curves, write_error_rates, write_metrics
from lightasr.score.report import write_report
from lightasr.score.study import Published, Row, SeedRun, StudyTable, read_run
from lightasr.score.tables import write_table
from lightasr.stage import git_commit, source_digest


def study_table(plan: Plan, study: Study) -> StudyTable:
    """Where the numbers of a study lie."""
    rows = tuple(
        Row(
            experiment.name,
            tuple(
                SeedRun(
                    run.seed,
                    **{job.stage: plan.project / job.dir for job in run.jobs},
                    pretraining=tuple(plan.project / job.dir for job in run.pretraining),
                )
                for run in experiment.runs
            ),
            measured_digest(measured_model(experiment.config)),
            _learner(experiment),
        )
        for experiment in study.experiments
    )
    score = study.experiments[0].config.score
    return StudyTable(
        title=study.spec.title,
        study=study.name,
        scale=study.scale,
        columns=study.columns,
        rows=rows,
        source_digest=source_digest(),
        measure=plan.project / study.measure.dir if study.measure else None,
        published={
            row: Published(study.spec.published_source, values)
            for row, values in study.spec.published.items()
        },
        samples=score.bootstrap_samples,
        seed=score.seed,
    )


def _learner(experiment: Experiment) -> str:
    measured = measured_pretraining(experiment.config)
    return measured_digest(measured) if measured else ""


def make_table(plan: Plan, study: Study) -> None:
    """`<study>.md`, `.csv`, `.tex`, what DVC shows, and last the file that names what went in."""
    stamp = plan.project / study.tables[-1]
    table = study_table(plan, study)
    write_table(table, stamp.parent)
    write_metrics(table, plan.project / study.metrics)
    write_error_rates(table, plan.project / study.wer_plot)
    write_curves(table, plan.project / study.curves_plot)
    for old in stamp.parent.glob(f"{study.name}-*.json"):
        if old.stem.rpartition("-")[0] == study.name:
            old.unlink()
    rows = {
        experiment.name: {run.seed: [job.id for job in run.jobs] for run in experiment.runs}
        for experiment in study.experiments
    }
    behind: dict[str, Any] = {"study": study.name, "rows": rows}
    if study.measure is not None:
        behind["measure"] = study.measure.id
    write_atomically(stamp, json.dumps(behind, indent=1) + "\n")


def make_report(plan: Plan) -> None:
    """The page of a scale, and the file that names the tables it shows."""
    page, stamp = (plan.project / name for name in plan.report)
    write_report(
        plan.scale, [study_table(plan, study) for study in plan.studies], page, _facts(plan)
    )
    for old in stamp.parent.glob(f"{plan.scale}-*.json"):
        if old.stem.rpartition("-")[0] == plan.scale:
            old.unlink()
    tables = {study.name: study.key for study in plan.studies}
    write_atomically(stamp, json.dumps({"scale": plan.scale, "tables": tables}, indent=1) + "\n")


def _facts(plan: Plan) -> dict[str, Any]:
    """What was run, by what, and what it took."""
    done = [job for job in plan.jobs.values() if job.done(plan.project)]
    receipts = [read_run(plan.project / job.dir) for job in done]
    return {
        "studies": [study.name for study in plan.studies],
        "jobs": len(receipts),
        "hours": sum(receipt["seconds"] for receipt in receipts) / 3600,
        "hosts": sorted({receipt["host"] for receipt in receipts}),
        "git_commit": git_commit(),
        "versions": receipts[-1]["versions"],
    }
