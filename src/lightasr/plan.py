"""Turns `config/` into experiments, and experiments into keyed jobs with paths.

The only place that knows where anything lies. Snakemake reads it at every parse and every command
asks it what to do, so it imports neither torch nor lhotse.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lightasr import schema
from lightasr.configfile import Tree, merge, nested, read_yaml
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, explain
from lightasr.score.columns import check_column

# Raise a stage's number when a change to its code alters its results: everything of that stage
# and below it gets a new key and is made again. Other edits of source make nothing again.
STAGE_VERSION = {
    "archive": 1,
    "features": 1,
    "tokenizer": 1,
    "lm": 1,
    "train": 1,
    "decode": 1,
    "score": 1,
    "tables": 1,
    "report": 1,
}
ROOTS = {
    "archive": "data/archives",
    "features": "data/features",
    "tokenizer": "data/tokenizers",
    "lm": "data/lm",
    "train": "results/train",
    "decode": "results/decode",
    "score": "results/score",
}
STAGES = tuple(ROOTS)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def digest(content: Any) -> str:
    """Ten hex digits that stand for a piece of configuration."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True, eq=False)
class Job:
    """One run of one stage: what it is made from decides its key, its key where it lies."""

    stage: str
    label: str
    config: Tree
    inputs: dict[str, Job] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        upstream = {name: job.key for name, job in self.inputs.items()}
        return digest([self.stage, STAGE_VERSION[self.stage], self.config, upstream])

    @cached_property
    def id(self) -> str:
        """Name of its directory, and what the command line and the rules call it."""
        return f"{self.label}-{self.key}"

    @cached_property
    def dir(self) -> str:
        return f"{ROOTS[self.stage]}/{self.id}"

    @cached_property
    def receipt(self) -> str:
        """The file whose presence says that the directory is complete."""
        return f"{self.dir}/run.json"

    def done(self, project: Path) -> bool:
        return (project / self.receipt).exists()


@dataclass(frozen=True)
class Run:
    """One seed of one experiment, from training to error rates."""

    seed: int
    train: Job
    decode: Job
    score: Job

    @property
    def jobs(self) -> tuple[Job, Job, Job]:
        return self.train, self.decode, self.score


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

    @cached_property
    def key(self) -> str:
        rows = [[e.name, [[run.seed, run.score.key] for run in e.runs]] for e in self.experiments]
        shown = self.spec.model_dump(mode="json", exclude={"base", "experiments"})
        return digest(["tables", STAGE_VERSION["tables"], shown, rows])

    @property
    def tables(self) -> list[str]:
        """The table's files; the last one names its content, so that a stale table shows."""
        stem = f"results/tables/{self.scale}/{self.name}"
        return [f"{stem}.md", f"{stem}.csv", f"{stem}.tex", f"{stem}-{self.key}.json"]


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
                add(run.score)
        return found

    def of_stage(self, stage: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.stage == stage]

    def job(self, stage: str, job_id: str) -> Job:
        """The job with this id; an experiment's name means its first seed's job."""
        job = self.jobs.get(job_id)
        if job is not None and job.stage == stage:
            return job
        if stage in {"train", "decode", "score"}:
            return getattr(self.run(job_id), stage)  # type: ignore[no-any-return]  # a Run's field
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
        return 2 if stage in {"archive", "features", "decode"} else 1


def nearest(name: str, known: list[str]) -> str:
    """The end of an error message about a name nobody knows."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(known)[:20])}" if known else ""


# --- reading config/ ---------------------------------------------------------------------------


def load_plan(project: Path, scale: str | None = None, studies: list[str] | None = None) -> Plan:
    """Read, resolve and validate; every mistake in every chosen study is told at once."""
    config = project / "config"
    main_file = config / "config.yaml"
    main = check(schema.Main, read_yaml(main_file), [Layer("config/config.yaml", None, {})])
    scale = scale or main.scale
    datasets = load_datasets(config / "datasets.yaml")
    scale_layer, scale_seeds = load_scale(config, scale)
    planner = _Planner(datasets)
    loaded = []
    problems: dict[str, None] = {}
    for name in studies or list(main.studies):
        try:
            loaded.append(_study(config, name, scale, scale_layer, scale_seeds, planner))
        except LightasrError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    if problems:
        raise LightasrError("\n".join(problems))
    return Plan(project, scale, tuple(loaded))


def load_datasets(path: Path) -> dict[str, schema.Dataset]:
    """The corpora that `corpus.name` may name."""
    layer = Layer("config/datasets.yaml", None, read_yaml(path))
    return {
        name: check(schema.Dataset, entry or {}, [Layer(layer.file, name, entry or {})])
        for name, entry in layer.tree.items()
    }


def load_scale(config: Path, scale: str) -> tuple[Layer, tuple[int, ...] | None]:
    """A scale's settings, and the seeds it allows where it is short of time."""
    tree = read_yaml(_config_file(config, "scales", scale))
    layer = Layer(f"config/scales/{scale}.yaml", None, tree)
    head = check(schema.Scale, {k: v for k, v in tree.items() if k in {"title", "seeds"}}, [layer])
    settings = {k: v for k, v in tree.items() if k not in {"title", "seeds"}}
    return Layer(layer.file, None, settings), head.seeds


def _config_file(config: Path, folder: str, name: str) -> Path:
    path = config / folder / f"{name}.yaml"
    if not path.exists():
        known = [file.stem for file in (config / folder).glob("*.yaml")]
        kind = {"scales": "scale", "studies": "study"}[folder]
        raise LightasrError(f"no {kind} '{name}' in config/{folder}{nearest(name, known)}")
    return path


def check(model: type[schema.AnySection], tree: Any, layers: list[Layer]) -> schema.AnySection:
    """`tree` as the typed `model`, or an error that names file, entry, key and the nearest name."""
    try:
        # JSON is how pydantic takes a list for a tuple and still no string for a number.
        return model.model_validate_json(json.dumps(schema.spelt_out(tree)))
    except ValidationError as error:
        raise LightasrError("\n".join(explain(error, model, tree, layers))) from None


def _study(
    config: Path,
    name: str,
    scale: str,
    scale_layer: Layer,
    scale_seeds: tuple[int, ...] | None,
    planner: _Planner,
) -> Study:
    path = _config_file(config, "studies", name)
    file = f"config/studies/{name}.yaml"
    tree = read_yaml(path)
    spec = check(schema.Study, tree, [Layer(file, None, tree)])
    for column in spec.columns:
        try:
            check_column(column)
        except LightasrError as error:
            raise LightasrError(f"{file}: columns: {error}") from None
    base = Layer(file, "base", spec.base)
    experiments: list[Experiment] = []
    problems: dict[str, None] = {}
    for entry in spec.experiments:
        try:
            for row, layers in _expand(file, spec, entry):
                resolved = _resolve([scale_layer, base, *layers])
                runs = planner.runs(resolved, scale_seeds or spec.seeds, file, row)
                experiments.append(Experiment(name, row, resolved, runs))
        except LightasrError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    rows = [experiment.name for experiment in experiments]
    for row in spec.published:
        if row not in rows and not problems:
            problems[f"{file}: published: '{row}' is no experiment{nearest(row, rows)}"] = None
    if problems:
        raise LightasrError("\n".join(problems))
    return Study(name, scale, spec, tuple(experiments))


def _resolve(layers: list[Layer]) -> schema.Experiment:
    tree: Tree = {}
    for layer in layers:
        tree = merge(tree, layer.tree)
    return check(schema.Experiment, tree, layers)


def _expand(file: str, spec: schema.Study, entry: str) -> Iterator[tuple[str, list[Layer]]]:
    """The rows of one entry, a row a grid point, each with its layers from the root down."""
    if not NAME.fullmatch(entry):
        raise LightasrError(
            f"{file}: experiments: '{entry}' is not a name: use letters, digits, _ . + -"
        )
    layers = _chain(file, spec, entry)
    grid = (spec.experiments[entry] or {}).get("grid", {})
    if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
        raise LightasrError(f"{file}: {entry}: grid: expected `key: [value, ...]` lines")
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        tree: Tree = {}
        for key, value in point.items():
            tree = merge(tree, nested(key, value))
        shown = ",".join(f"{key}={_shown(value)}" for key, value in point.items())
        row = f"{entry}[{shown}]" if point else entry
        yield row, [*layers, Layer(file, entry, tree)]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _chain(file: str, spec: schema.Study, entry: str) -> list[Layer]:
    """An entry's own layer after those of all it extends."""
    layers: list[Layer] = []
    seen: list[str] = []
    name: str | None = entry
    while name is not None:
        if name in seen:
            raise LightasrError(f"{file}: {entry}: extends: a cycle: {' -> '.join([*seen, name])}")
        if name not in spec.experiments:
            hint = nearest(name, [known for known in spec.experiments if known != entry])
            raise LightasrError(f"{file}: {seen[-1]}: extends: no experiment '{name}'{hint}")
        own = spec.experiments[name] or {}
        if seen and "grid" in own:
            raise LightasrError(f"{file}: {seen[-1]}: extends: '{name}' is a grid, not one row")
        if "seed" in (own.get("train") or {}):
            raise LightasrError(f"{file}: {name}: train.seed: set the study's `seeds` instead")
        layers.insert(0, Layer(file, name, {k: v for k, v in own.items() if k not in RESERVED}))
        seen.append(name)
        name = own.get("extends")
    return layers


RESERVED = {"extends", "grid"}


# --- from an experiment to its jobs ------------------------------------------------------------


class _Planner:
    """Makes the jobs of experiments; equal jobs are made once, whoever asks."""

    def __init__(self, datasets: Mapping[str, schema.Dataset]) -> None:
        self.datasets = datasets
        self.made: dict[str, Job] = {}

    def make(self, stage: str, label: str, config: Tree, inputs: dict[str, Job]) -> Job:
        job = Job(stage, label, config, inputs)
        return self.made.setdefault(job.id, job)

    def runs(
        self, config: schema.Experiment, seeds: tuple[int, ...], file: str, row: str
    ) -> tuple[Run, ...]:
        """One run a seed; the parts it names must exist in the dataset it names."""
        self.check_parts(config.corpus, f"{file}: {row}: corpus")
        features = {
            f"features/{part}": self.features(config, part)
            for part in (*config.corpus.train, config.corpus.dev, *config.corpus.test)
        }
        training = {f"features/{part}": features[f"features/{part}"] for part in config.corpus.train}
        held_out = {name: job for name, job in features.items() if name not in training}
        tokenizer = self.make(
            "tokenizer", config.tokenizer.kind, config.tokenizer.model_dump(mode="json"), training
        )
        lm = self.make(
            "lm",
            f"{config.lm.order}gram",
            config.lm.model_dump(mode="json"),
            {
                "text": self.archive(config.corpus, config.corpus.text),
                **(training if config.lm.transcripts else {}),
            },
        )
        return tuple(self.run(config, seed, training, held_out, tokenizer, lm) for seed in seeds)

    def run(
        self,
        config: schema.Experiment,
        seed: int,
        training: dict[str, Job],
        held_out: dict[str, Job],
        tokenizer: Job,
        lm: Job,
    ) -> Run:
        dev = f"features/{config.corpus.dev}"
        slices = config.model_dump(mode="json", include={"features", "tokenizer", "model"})
        slices["train"] = {**config.train.model_dump(mode="json"), "seed": seed}
        slices["dev"] = config.corpus.dev
        train = self.make(
            "train",
            config.model.encoder.label(),
            slices,
            {**training, dev: held_out[dev], "tokenizer": tokenizer},
        )
        decode = self.make(
            "decode",
            train.label,
            {**config.decode.model_dump(mode="json"), "dev": config.corpus.dev},
            {"train": train, **held_out, **({"lm": lm} if "beam" in config.decode.decoders else {})},
        )
        score = self.make(
            "score", train.label, config.score.model_dump(mode="json"), {"decode": decode}
        )
        return Run(seed, train, decode, score)

    def features(self, config: schema.Experiment, part: str) -> Job:
        archive = self.archive(config.corpus, part)
        slices = {**config.features.model_dump(mode="json"), "part": part}
        return self.make("features", f"{part}-{config.features.kind}", slices, {"archive": archive})

    def archive(self, corpus: schema.Corpus, part: str) -> Job:
        dataset = self.datasets[corpus.name]
        slices: Tree = {"corpus": corpus.name, "part": part}
        if dataset.builtin:
            slices["sample"] = corpus.sample.model_dump(mode="json")
        else:
            slices["source"] = dataset.parts[part].model_dump(mode="json", exclude={"urls"})
        return self.make("archive", f"{corpus.name}-{part}", slices, {})

    def check_parts(self, corpus: schema.Corpus, where: str) -> None:
        dataset = self.datasets.get(corpus.name)
        if dataset is None:
            raise LightasrError(
                f"{where}.name: no dataset '{corpus.name}' in config/datasets.yaml"
                f"{nearest(corpus.name, list(self.datasets))}"
            )
        for part in (*corpus.train, corpus.dev, *corpus.test, corpus.text):
            if part not in dataset.parts:
                raise LightasrError(
                    f"{where}: dataset '{corpus.name}' has no part '{part}'"
                    f"{nearest(part, list(dataset.parts))}"
                )
