"""Turns `config/` into a plan: studies, their experiments, and the jobs behind them.

The only place that knows what there is to do. Snakemake reads it at every parse and every command
asks it, so neither it nor what it imports imports torch or lhotse.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightasr import schema
from lightasr.checks import check_experiment
from lightasr.configfile import read_yaml
from lightasr.datasets import Datasets
from lightasr.entries import expand, resolve
from lightasr.errors import LightasrError, Mistakes
from lightasr.invalid import Layer, check, nearest
from lightasr.jobs import STAGE_VERSION, Job, Run, digest
from lightasr.planner import Planner, rescores
from lightasr.score.columns import (
    DECODERS,
    PRETRAIN,
    RESCORED,
    check_column,
    expand_columns,
    is_measured,
)


@dataclass(frozen=True)
class Experiment:
    """One row of a table."""

    study: str
    name: str
    config: schema.Experiment
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Study:
    """One paper table: a file in `config/studies/`."""

    name: str
    scale: str
    spec: schema.Study
    experiments: tuple[Experiment, ...]
    measure: Job | None = None
    """What measures the models side by side, for columns that ask for it."""

    @cached_property
    def key(self) -> str:
        rows: list[Any] = [[e.name, [_keys(run) for run in e.runs]] for e in self.experiments]
        if self.measure is not None:
            rows.append(self.measure.key)
        shown = self.spec.model_dump(mode="json", exclude={"recipe", "base", "experiments"})
        shown["columns"] = self.columns
        return digest(["tables", STAGE_VERSION["tables"], shown, rows])

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """What is shown of each experiment, every `*` spelt out."""
        configs = [experiment.config for experiment in self.experiments]
        parts = dict.fromkeys(part for config in configs for part in config.corpus.test)
        run: set[str] = {decoder for config in configs for decoder in config.decode.decoders}
        if any(rescores(config) for config in configs):
            run.add(RESCORED)
        decoders = [decoder for decoder in DECODERS if decoder in run]
        return expand_columns(self.spec.columns, list(parts), decoders)

    @property
    def receipts(self) -> list[str]:
        """What says that every run behind the table is there."""
        jobs = [job for e in self.experiments for run in e.runs for job in run.jobs]
        jobs += [self.measure] if self.measure else []
        return list(dict.fromkeys(job.receipt for job in jobs))

    @property
    def tables(self) -> list[str]:
        """The table's files; the last one names its content, so that a stale table shows."""
        stem = f"results/tables/{self.scale}/{self.name}"
        shown = [self.metrics, self.wer_plot, self.curves_plot]
        return [f"{stem}.md", f"{stem}.csv", f"{stem}.tex", *shown, f"{stem}-{self.key}.json"]

    @property
    def metrics(self) -> str:
        """What `dvc metrics` shows."""
        return f"results/metrics/{self.scale}/{self.name}.json"

    @property
    def wer_plot(self) -> str:
        """What `dvc plots` shows, one folder a kind of plot."""
        return f"results/plots/wer/{self.scale}/{self.name}.csv"

    @property
    def curves_plot(self) -> str:
        return f"results/plots/curves/{self.scale}/{self.name}.csv"


def _keys(run: Run) -> list[Any]:
    """What a run's numbers in a table hang on."""
    besides = [job.key for job in (run.neural_lm, run.probe) if job is not None]
    return [run.seed, run.score.key, *besides]


@dataclass(frozen=True)
class Plan:
    """All that a scale and a choice of studies ask for."""

    project: Path
    scale: str
    studies: tuple[Study, ...]

    @property
    def experiments(self) -> Iterator[Experiment]:
        return itertools.chain.from_iterable(study.experiments for study in self.studies)

    @property
    def options(self) -> str:
        """What makes a command of the workflow see this very plan."""
        return " ".join([f"--scale {self.scale}", *(f"--study {s.name}" for s in self.studies)])

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """Every job by id, upstream first."""
        found: dict[str, Job] = {}

        def add(job: Job) -> None:
            if job.id not in found:
                for upstream in job.inputs.values():
                    add(upstream)
                found[job.id] = job

        for experiment in self.experiments:
            for run in experiment.runs:
                for job in run.jobs:
                    add(job)
        for study in self.studies:
            if study.measure is not None:
                add(study.measure)
        return found

    def of_stage(self, stage: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.stage == stage]

    def job(self, stage: str, job_id: str) -> Job:
        """The job with this id; an experiment's name means its first seed's job."""
        job = self.jobs.get(job_id)
        if job is not None and job.stage == stage:
            return job
        if stage in {"neural_lm", "pretrain", "train", "probe", "decode", "score"}:
            made: Job | None = getattr(self.run(job_id), stage)
            if made is not None:
                return made
            raise LightasrError(f"'{job_id}' has no {stage}: set `{stage}` in its entry")
        known = [job.id for job in self.of_stage(stage)]
        raise LightasrError(f"no {stage} job '{job_id}' in the plan{nearest(job_id, known)}")

    def run(self, name: str) -> Run:
        """The first run of an experiment given as `lstm`, `study/lstm`, an id or a directory."""
        wanted = name.rstrip("/").rpartition("/")[2]
        matches = []
        for experiment in self.experiments:
            full = f"{experiment.study}/{experiment.name}"
            for run in experiment.runs:
                if wanted in {job.id for job in run.jobs}:
                    return run
            if name in {experiment.name, full}:
                matches.append((full, experiment.runs[0]))
        if len({run.train.id for _, run in matches}) == 1:
            return matches[0][1]
        if matches:
            choice = " or ".join(full for full, _ in matches)
            raise LightasrError(f"'{name}' is a row of several studies: say {choice}")
        known = [e.name for e in self.experiments] + list(self.jobs)
        raise LightasrError(f"no run '{name}' at scale '{self.scale}'{nearest(name, known)}")

    @property
    def report(self) -> list[str]:
        """The report page, and a stamp that names the tables it shows."""
        shown = [STAGE_VERSION["report"], [[study.name, study.key] for study in self.studies]]
        stem = f"results/report/{self.scale}"
        return [f"{stem}.html", f"{stem}-{digest(shown)}.json"]

    def inputs(self, job_id: str) -> list[str]:
        """What the workflow must have made before this job: nothing once the job is done."""
        job = self.jobs[job_id]
        return [] if job.done(self.project) else [up.receipt for up in job.inputs.values()]

    def threads(self, stage: str) -> int:
        """Cores a job of this stage uses well."""
        return {"archive": 2, "features": 8, "decode": 2}.get(stage, 1)


def load_plan(
    project: Path,
    scale: str | None = None,
    studies: list[str] | None = None,
    corpora: type[Datasets] = Datasets,
    tables: bool = True,
) -> Plan:
    """Read, resolve and validate; every mistake in every chosen study is told at once.

    Without `tables`, what they show is not checked: runs do not depend on it.
    """
    config = project / "config"
    main_tree = read_yaml(config / "config.yaml")
    main = check(schema.Main, main_tree, [Layer("config/config.yaml", None, main_tree)])
    scale = scale or main.scale
    scale_layer, head = load_scale(config, scale)
    datasets = corpora.load(project, scale_layer.file, head.datasets, main.mirrors)
    planner = Planner(datasets)
    loaded = []
    mistakes = Mistakes()
    for name in dict.fromkeys(studies or main.studies):
        with mistakes.noted():
            loaded.append(_study(config, name, scale, scale_layer, head, planner, tables))
    mistakes.tell()
    return Plan(project, scale, tuple(loaded))


def load_scale(config: Path, scale: str) -> tuple[Layer, schema.Scale]:
    """A scale's settings of experiments, and what it says of itself."""
    tree = read_yaml(_config_file(config, "scales", scale))
    layer = Layer(f"config/scales/{scale}.yaml", None, tree)
    head = {key: value for key, value in tree.items() if key in schema.Scale.model_fields}
    settings = {key: value for key, value in tree.items() if key not in head}
    checked = check(schema.Scale, head, [layer])
    mistakes = Mistakes()
    for study in checked.seeds_of:
        with mistakes.noted(f"{layer.file}: seeds_of: "):
            _config_file(config, "studies", study)
    mistakes.tell()
    return Layer(layer.file, None, settings), checked


def _config_file(config: Path, folder: str, name: str) -> Path:
    path = config / folder / f"{name}.yaml"
    if not path.exists():
        known = [file.stem for file in (config / folder).glob("*.yaml")]
        kind = {"scales": "scale", "studies": "study"}[folder]
        raise LightasrError(f"no {kind} '{name}' in config/{folder}{nearest(name, known)}")
    return path


def _study(
    config: Path,
    name: str,
    scale: str,
    scale_layer: Layer,
    head: schema.Scale,
    planner: Planner,
    tables: bool,
) -> Study:
    tree = read_yaml(_config_file(config, "studies", name))
    file = f"config/studies/{name}.yaml"
    spec = check(schema.Study, tree, [Layer(file, None, tree)])
    recipe = _recipe(file, spec, scale_layer.file, head)
    shared = [scale_layer, recipe, Layer(file, "base", spec.base)]
    seeds = head.seeds_of.get(name) or head.seeds or spec.seeds
    experiments: list[Experiment] = []
    mistakes = Mistakes()
    for entry in spec.experiments:
        with mistakes.noted():
            for row, own in expand(file, spec, entry):
                resolved, layers = resolve([*shared, *own], head.encoders)
                check_experiment(resolved, layers, planner.datasets)
                runs = planner.runs(resolved, seeds)
                experiments.append(Experiment(name, row, resolved, runs))
    if tables:
        _check_table(file, spec, experiments, planner.datasets.parts, mistakes)
    mistakes.tell()
    measured = [column for column in spec.columns if is_measured(column)]
    configs = [experiment.config for experiment in experiments]
    measure = None
    if measured:
        pretrainings = any(column.startswith(PRETRAIN) for column in measured)
        measure = planner.measure(name, configs, head.measure, pretrainings)
    return Study(name, scale, spec, tuple(experiments), measure)


def _recipe(file: str, spec: schema.Study, scale_file: str, head: schema.Scale) -> Layer:
    """What the scale says for studies of this kind; nothing where the study names no kind."""
    if spec.recipe is None:
        return Layer(scale_file, None, {})
    if spec.recipe not in head.recipes:
        hint = nearest(spec.recipe, list(head.recipes)) if head.recipes else ""
        raise LightasrError(f"{file}: recipe: {scale_file} has no recipe '{spec.recipe}'{hint}")
    return Layer(scale_file, f"recipes: {spec.recipe}", head.recipes[spec.recipe])


def _check_table(
    file: str,
    spec: schema.Study,
    experiments: list[Experiment],
    parts: set[str],
    mistakes: Mistakes,
) -> None:
    """Columns and published numbers name what the study has."""
    rows = {experiment.name for experiment in experiments}
    scored = {part for e in experiments for part in (e.config.corpus.dev, *e.config.corpus.test)}
    complete = not mistakes.lines
    if not complete:  # tell only what is wrong whatever the missing rows turn out to be
        scored, rows = parts, rows | spec.experiments.keys()
    columns = [("columns", column, scored) for column in spec.columns]
    for row, numbers in spec.published.items():
        columns += [(f"published: {row}", column, parts) for column in numbers]
        if (row if complete else row.partition("[")[0]) not in rows:
            hint = nearest(row, sorted(rows))
            mistakes.add(f"{file}: published: '{row}' is no experiment{hint}")
    for where, column, known in columns:
        with mistakes.noted(f"{file}: {where}: "):
            check_column(column, sorted(known), every=where == "columns")
    if spec.published and not spec.published_source:
        mistakes.add(f"{file}: published_source: missing: say where 'published' stands")
