"""Turns `config/` into experiments, and experiments into keyed jobs with paths.

The only place that knows where anything lies. Snakemake reads it at every parse and every command
asks it what to do, so it imports neither torch nor lhotse.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightasr import schema
from lightasr.configfile import Tree, merge, nested, read_yaml
from lightasr.datasets import Datasets, content_digest
from lightasr.errors import LightasrError, Mistakes
from lightasr.invalid import Layer, check, nearest, place
from lightasr.score.columns import (
    DECODERS,
    LM_DECODER,
    RESCORED,
    check_column,
    expand_columns,
    is_measured,
)

# Raise a stage's number when a change to its code alters its results: everything of that stage
# and below it gets a new key and is made again. Other edits of source make nothing again.
STAGE_VERSION = {
    "archive": 1,
    "features": 1,
    "labels": 1,
    "tokenizer": 1,
    "lm": 2,
    "neural_lm": 1,
    "cluster": 1,
    "pretrain": 1,
    "train": 1,
    "probe": 1,
    "decode": 2,
    "score": 2,
    "measure": 1,
    "tables": 1,
    "report": 1,
}
ROOTS = {
    "archive": "data/archives",
    "features": "data/features",
    "labels": "data/labels",
    "tokenizer": "data/tokenizers",
    "lm": "data/lm",
    "neural_lm": "data/neural_lm",
    "cluster": "data/clusters",
    "pretrain": "results/pretrain",
    "train": "results/train",
    "probe": "results/probe",
    "decode": "results/decode",
    "score": "results/score",
    "measure": "results/measure",
}
STAGES = tuple(ROOTS)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
NOT_OF_NAMES = re.compile(r"^[^A-Za-z0-9]+|[^A-Za-z0-9_.+-]+")


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
    files: dict[str, str] = field(default_factory=dict)
    """Inputs of a user's own; `config` holds digests of their content."""
    places: Tree = field(default_factory=dict)
    """More of its configuration that changes nothing of what is made: where something is had."""

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
    neural_lm: Job | None = None
    pretrain: Job | None = None
    probe: Job | None = None

    @property
    def jobs(self) -> tuple[Job, ...]:
        own = (self.neural_lm, self.pretrain, self.train, self.probe, self.decode, self.score)
        return tuple(job for job in own if job is not None)


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
        shown = self.spec.model_dump(mode="json", exclude={"base", "experiments"})
        shown["columns"] = self.columns
        return digest(["tables", STAGE_VERSION["tables"], shown, rows])

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """What is shown of each experiment, every `*` spelt out."""
        configs = [experiment.config for experiment in self.experiments]
        parts = dict.fromkeys(part for config in configs for part in config.corpus.test)
        run: set[str] = {decoder for config in configs for decoder in config.decode.decoders}
        if any(_rescores(config) for config in configs):
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


# --- reading config/ ---------------------------------------------------------------------------


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
    planner = _Planner(datasets)
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
    return Layer(layer.file, None, settings), check(schema.Scale, head, [layer])


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
    planner: _Planner,
    tables: bool,
) -> Study:
    tree = read_yaml(_config_file(config, "studies", name))
    file = f"config/studies/{name}.yaml"
    spec = check(schema.Study, tree, [Layer(file, None, tree)])
    base = Layer(file, "base", spec.base)
    experiments: list[Experiment] = []
    mistakes = Mistakes()
    for entry in spec.experiments:
        with mistakes.noted():
            for row, own in _expand(file, spec, entry):
                layers = [scale_layer, base, *own]
                resolved = _resolve(layers)
                planner.datasets.check(resolved.corpus, layers)
                _check_language_model(resolved, layers, planner.datasets)
                _check_neural_lm(resolved, layers)
                _check_pretrain(resolved, layers, planner.datasets)
                runs = planner.runs(resolved, head.seeds or spec.seeds)
                experiments.append(Experiment(name, row, resolved, runs))
    if tables:
        _check_table(file, spec, experiments, planner.datasets.parts, mistakes)
    mistakes.tell()
    measured = any(is_measured(column) for column in spec.columns)
    measure = planner.measure(name, experiments, head.measure) if measured else None
    return Study(name, scale, spec, tuple(experiments), measure)


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


def _resolve(layers: list[Layer]) -> schema.Experiment:
    """`layers` go from the scale's to the entry's own."""
    layers = [_without_switches(layers), *layers[1:]]
    tree: Tree = {}
    for layer in layers:
        for path in (["train", "seed"], ["neural_lm", "train", "seed"]):
            if layer.holds(path):
                where = place(path, [layer])
                raise LightasrError(f"{where}: set `seeds` of the study or the scale instead")
        tree = schema.with_names(merge(tree, schema.spelt_out(layer.tree)), schema.Experiment)
    return check(schema.Experiment, tree, layers)


def _without_switches(layers: list[Layer]) -> Layer:
    """A scale says how a model is pretrained, say, and the study whether it is."""
    scale, *others = layers
    asked = {key for layer in others for key in layer.tree}
    kept = {key: value for key, value in scale.tree.items() if key not in SWITCHED - asked}
    return Layer(scale.file, scale.entry, kept)


def _check_language_model(
    config: schema.Experiment, layers: list[Layer], datasets: Datasets
) -> None:
    """A beam search has something to make its n-gram from."""
    lm, text, kind = config.lm, config.corpus.text, config.tokenizer.kind
    if not _needs_lm(config.decode):
        return
    if text is None and not lm.transcripts and lm.arpa is None:
        raise LightasrError(
            f"{place(['corpus', 'text'], layers)}: null, and lm.transcripts is off: the beam "
            "search has no language model; set one of them, or `decode: {decoders: [greedy]}`"
        )
    if lm.interpolate and not (lm.transcripts and (text is not None or lm.arpa is not None)):
        lacking = "corpus.text and lm.arpa are null" if lm.transcripts else "lm.transcripts is off"
        raise LightasrError(
            f"{place(['lm', 'interpolate'], layers)}: mixes text, or a ready model, with the "
            f"transcripts, but {lacking}"
        )
    _check_unit("lm", lm.unit, kind, layers)
    if lm.unit != "word" and "flashlight" in config.decode.decoders:
        raise LightasrError(
            f"{place(['lm', 'unit'], layers)}: '{lm.unit}', but the search `flashlight` needs an "
            "n-gram of words"
        )
    if lm.arpa is not None:
        where, parts = place(["lm", "arpa"], layers), datasets[config.corpus.name].parts
        part = parts.get(lm.arpa)
        if part is not None and part.manifest is not None:
            raise LightasrError(f"{where}: '{lm.arpa}' holds recordings, not a language model")
        if part is None and not (datasets.project / Path(lm.arpa).expanduser()).is_file():
            raise LightasrError(
                f"{where}: '{lm.arpa}' is neither a file nor a part of dataset "
                f"'{config.corpus.name}'{nearest(lm.arpa, list(parts))}"
            )


def _check_neural_lm(config: schema.Experiment, layers: list[Layer]) -> None:
    """A neural language model has text to learn from, and units that there are."""
    neural = config.neural_lm
    if neural is None:
        return
    if config.corpus.text is None and not neural.transcripts:
        raise LightasrError(
            f"{place(['corpus', 'text'], layers)}: null, and neural_lm.transcripts is off: the "
            "neural language model has no text; set one of them, or `neural_lm: null`"
        )
    _check_unit("neural_lm", neural.unit, config.tokenizer.kind, layers)


def _check_pretrain(config: schema.Experiment, layers: list[Layer], datasets: Datasets) -> None:
    """What is learnt from without labels is there, and not what is tested on."""
    if config.probe is not None and config.probe.of == "pretrain" and config.pretrain is None:
        where = place(["probe", "of"], layers)
        raise LightasrError(f"{where}: 'pretrain', but nothing is pretrained: set `pretrain`")
    if config.pretrain is None:
        return
    objective, encoder = config.pretrain.objective, config.model.encoder
    # Where an encoder calls them otherwise, the stage finds out.
    depth = getattr(encoder, "layers", 0) + getattr(encoder, "fused_layers", 0)
    if isinstance(objective, schema.Clustered) and depth and (objective.layer or 1) > depth:
        where = place(["pretrain", "objective", "layer"], layers)
        raise LightasrError(f"{where}: {objective.layer}, but the encoder has {depth} layers")
    if config.pretrain.parts is None:
        return
    where, parts = place(["pretrain", "parts"], layers), datasets[config.corpus.name].parts
    for name in config.pretrain.parts:
        if name not in parts:
            hint = nearest(name, list(parts))
            raise LightasrError(
                f"{where}: dataset '{config.corpus.name}' has no part '{name}'{hint}"
            )
        if name in (config.corpus.dev, *config.corpus.test):
            raise LightasrError(f"{where}: '{name}' is held out")


def _check_unit(section: str, unit: str, kind: str, layers: list[Layer]) -> None:
    """Words, or the symbols of the tokenizer by their right name."""
    symbols = "char" if kind == "char" else "piece"
    if unit not in {"word", symbols}:
        raise LightasrError(
            f"{place([section, 'unit'], layers)}: '{unit}', but the symbols of a tokenizer of kind "
            f"'{kind}' are counted by `unit: {symbols}`"
        )


def _expand(file: str, spec: schema.Study, entry: str) -> Iterator[tuple[str, list[Layer]]]:
    """The rows of one entry, a row a grid point, each with its layers from the root down."""
    if not NAME.fullmatch(entry):
        raise LightasrError(
            f"{file}: experiments: '{entry}' is not a name: use letters, digits, _ . + -"
        )
    layers = _chain(file, spec, entry)
    own = spec.experiments[entry] or {}
    if "grid" not in own:
        yield entry, layers
        return
    grid = own["grid"]
    if not (isinstance(grid, dict) and grid) or not all(
        isinstance(values, list) and values for values in grid.values()
    ):
        raise LightasrError(f"{file}: {entry}: grid: expected `key: [value, ...]` lines")
    rows: set[str] = set()
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        shown = ",".join(f"{key}={_shown(value)}" for key, value in point.items())
        row = f"{entry}[{shown}]"
        if row in rows:
            raise LightasrError(f"{file}: {entry}: grid: '{row}' is given twice")
        rows.add(row)
        tree: Tree = {}
        for key, value in point.items():
            tree = merge(tree, nested(key, value))
        yield row, [*layers, Layer(file, entry, tree)]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    short = f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _chain(file: str, spec: schema.Study, entry: str) -> list[Layer]:
    """An entry's own layer after those of all it extends."""
    layers: list[Layer] = []
    seen: list[str] = []
    name: Any = entry
    while name is not None:
        where = f"{file}: {seen[-1] if seen else entry}: extends"
        if not isinstance(name, str):
            raise LightasrError(f"{where}: expected the name of one experiment, found {name!r}")
        if name in seen:
            raise _cycle(file, spec, seen[seen.index(name) :])
        if name not in spec.experiments:
            hint = nearest(name, [known for known in spec.experiments if known != seen[-1]])
            raise LightasrError(f"{where}: no experiment '{name}'{hint}")
        own = spec.experiments[name] or {}
        if seen and "grid" in own:
            raise LightasrError(f"{where}: '{name}' is a grid, not one row")
        layers.insert(0, Layer(file, name, {k: v for k, v in own.items() if k not in RESERVED}))
        seen.append(name)
        name = own.get("extends")
    return layers


def _cycle(file: str, spec: schema.Study, cycle: list[str]) -> LightasrError:
    """The error of a cycle reads the same from whichever entry it was found."""
    first = min(cycle, key=list(spec.experiments).index)
    start = cycle.index(first)
    shown = " -> ".join([*cycle[start:], *cycle[:start], first])
    return LightasrError(f"{file}: {first}: extends: a cycle: {shown}")


RESERVED = {"extends", "grid"}
SWITCHED = {"pretrain", "neural_lm"}
"""What is there where a study asks for it."""


# --- from an experiment to its jobs ------------------------------------------------------------


def _needs_lm(decode: schema.Decode) -> bool:
    """Whether more is done than to take the best symbol of each frame."""
    return set(decode.decoders) != {"greedy"}


def _rescores(config: schema.Experiment) -> bool:
    """Whether what the beam search finds is scored anew by a neural language model."""
    return config.neural_lm is not None and LM_DECODER in config.decode.decoders


def _lm_label(lm: schema.LanguageModel) -> str:
    """`4gram`, `char-6gram`, or the name of a ready model."""
    if lm.arpa is not None:
        name = Path(lm.arpa).name
        for ending in (".gz", ".arpa", ".bin", ".txt"):
            name = name.removesuffix(ending)
        return NOT_OF_NAMES.sub("-", name) or "arpa"
    return f"{lm.order}gram" if lm.unit == "word" else f"{lm.unit}-{lm.order}gram"


def measured_model(config: schema.Experiment) -> schema.MeasuredModel:
    """What of an experiment decides the costs of its model."""
    return schema.MeasuredModel(
        features=config.features,
        tokenizer=config.tokenizer,
        model=config.model,
        precision=config.train.precision,
    )


def measured_digest(measured: schema.MeasuredModel) -> str:
    """How the stage `measure` calls a model."""
    return digest(measured.model_dump(mode="json"))


class _Planner:
    """Makes the jobs of experiments; equal jobs are made once, whoever asks."""

    def __init__(self, datasets: Datasets) -> None:
        self.datasets = datasets
        self.made: dict[str, Job] = {}

    def make(
        self,
        stage: str,
        label: str,
        config: Tree,
        inputs: dict[str, Job],
        files: dict[str, str] | None = None,
        places: Tree | None = None,
    ) -> Job:
        job = Job(stage, label, config, inputs, files or {}, places or {})
        return self.made.setdefault(job.id, job)

    def runs(self, config: schema.Experiment, seeds: tuple[int, ...]) -> tuple[Run, ...]:
        """One run a seed; all of them start from one pretraining."""
        features = {
            f"features/{part}": self.features(config, part)
            for part in (*config.corpus.train, config.corpus.dev, *config.corpus.test)
        }
        training = {
            f"features/{part}": features[f"features/{part}"] for part in config.corpus.train
        }
        held_out = {name: job for name, job in features.items() if name not in training}
        if (minutes := config.corpus.label_minutes) is not None:
            labels = self.make("labels", f"{minutes:g}min", {"label_minutes": minutes}, training)
            training = {**training, "labels": labels}
        text = config.text.model_dump(mode="json")
        tokenizer = self.make(
            "tokenizer",
            config.tokenizer.kind,
            {**config.tokenizer.model_dump(mode="json"), "text": text},
            training,
        )
        dev = held_out[f"features/{config.corpus.dev}"]
        lm = self.language_model(config, text, training, dev, tokenizer)
        pretrain = self.pretrain(config, held_out)
        neural = [
            self.neural_lm(config, seed, text, training, held_out, tokenizer) for seed in seeds
        ]
        return tuple(
            self.run(config, seed, training, held_out, tokenizer, lm, neural_lm, pretrain)
            for seed, neural_lm in zip(seeds, neural, strict=True)
        )

    def run(
        self,
        config: schema.Experiment,
        seed: int,
        training: dict[str, Job],
        held_out: dict[str, Job],
        tokenizer: Job,
        lm: Job | None,
        neural_lm: Job | None,
        pretrain: Job | None,
    ) -> Run:
        dev = f"features/{config.corpus.dev}"
        slices = config.model_dump(mode="json", include={"features", "text", "tokenizer", "model"})
        slices["train"] = {**config.train.model_dump(mode="json"), "seed": seed}
        slices["dev"] = config.corpus.dev
        if pretrain is not None:
            slices["finetune"] = config.finetune.model_dump(mode="json")
        train = self.make(
            "train",
            config.model.encoder.label(),
            slices,
            {
                **training,
                dev: held_out[dev],
                "tokenizer": tokenizer,
                **({"pretrain": pretrain} if pretrain else {}),
            },
        )
        decode = self.make(
            "decode",
            train.label,
            {**config.decode.model_dump(mode="json"), "text": slices["text"], "dev": slices["dev"]},
            {
                "train": train,
                **held_out,
                **({"lm": lm} if lm else {}),
                **({"neural_lm": neural_lm} if neural_lm and _rescores(config) else {}),
            },
        )
        score = self.make(
            "score", train.label, config.score.model_dump(mode="json"), {"decode": decode}
        )
        probe = self.probe(config, training, held_out, train, pretrain)
        return Run(seed, train, decode, score, neural_lm, pretrain, probe)

    def probe(
        self,
        config: schema.Experiment,
        training: dict[str, Job],
        held_out: dict[str, Job],
        train: Job,
        pretrain: Job | None,
    ) -> Job | None:
        """What each layer of the encoder knows; None where nobody asks."""
        if config.probe is None:
            return None
        name, model = ("train", train) if config.probe.of == "train" else ("pretrain", pretrain)
        assert model is not None, "checked"
        corpus = config.corpus
        slices = config.probe.model_dump(mode="json")
        features = {
            f"features/{part}": (training | held_out)[f"features/{part}"]
            for part in (*corpus.train, *corpus.test)
        }
        slices |= {"train": list(corpus.train), "test": list(corpus.test)}
        return self.make("probe", model.label, slices, {**features, name: model})

    def pretrain(self, config: schema.Experiment, held_out: dict[str, Job]) -> Job | None:
        """What front end and encoder learn without labels; None where they learn nothing."""
        pretrain = config.pretrain
        if pretrain is None:
            return None
        slices = config.model_dump(mode="json", include={"features"})
        slices |= config.model.model_dump(mode="json", exclude={"head"})
        slices |= pretrain.model_dump(mode="json", exclude={"parts"})
        slices["dev"] = config.corpus.dev
        dev = f"features/{config.corpus.dev}"
        parts = pretrain.parts or config.corpus.train
        inputs = {f"features/{part}": self.features(config, part) for part in parts}
        inputs[dev] = held_out[dev]
        label = pretrain.label(config.model)
        if not isinstance(pretrain.objective, schema.Clustered):
            return self.make("pretrain", label, slices, inputs)
        objective = pretrain.objective
        slices["objective"] = objective.model_dump(mode="json", exclude=set(objective.BEFORE))
        made: Job | None = None
        for iteration in range(1, objective.iterations + 1):
            clusters = self.cluster(config, objective, inputs, made)
            made = self.make(
                "pretrain", f"{label}-{iteration}", slices, {**inputs, "clusters": clusters}
            )
        return made

    def cluster(
        self,
        config: schema.Experiment,
        objective: schema.Clustered,
        inputs: dict[str, Job],
        before: Job | None,
    ) -> Job:
        """The clusters that a pretraining tells: of features, or of what one before has learnt."""
        assert config.pretrain is not None
        slices: Tree = {
            "clusters": objective.clusters,
            "hours": objective.cluster_hours,
            "seed": config.pretrain.train.seed,
            "dev": config.corpus.dev,
        }
        if before is not None:
            label = f"{before.label}-k{objective.clusters}"
            slices["layer"] = objective.layer
            return self.make("cluster", label, slices, {**inputs, "pretrain": before})
        slices["of"] = {
            **config.model_dump(mode="json", include={"features"}),
            **config.model.model_dump(mode="json", include={"normalize", "frontend"}),
        }
        return self.make("cluster", f"{config.features.kind}-k{objective.clusters}", slices, inputs)

    def language_model(
        self,
        config: schema.Experiment,
        text: Tree,
        training: dict[str, Job],
        dev: Job,
        tokenizer: Job,
    ) -> Job | None:
        """The n-gram of the beam search; None where there is none."""
        if not _needs_lm(config.decode):
            return None
        lm = config.lm
        slices = {**lm.model_dump(mode="json"), "text": text}
        inputs: dict[str, Job] = {}
        files: dict[str, str] = {}
        if lm.arpa is not None:
            self._ready_model(config.corpus, lm.arpa, slices, inputs, files)
        else:
            self._text(config.corpus, slices, inputs, files)
        if lm.transcripts and (lm.arpa is None or lm.interpolate):
            inputs |= training
        if lm.interpolate:
            inputs["dev"] = dev
        if lm.unit != "word":
            inputs["tokenizer"] = tokenizer
        return self.make("lm", _lm_label(lm), slices, inputs, files)

    def neural_lm(
        self,
        config: schema.Experiment,
        seed: int,
        text: Tree,
        training: dict[str, Job],
        held_out: dict[str, Job],
        tokenizer: Job,
    ) -> Job | None:
        """The recurrent language model, scored on all held-out parts; None where there is none."""
        neural = config.neural_lm
        if neural is None:
            return None
        slices = {**neural.model_dump(mode="json"), "text": text, "dev": config.corpus.dev}
        slices["train"] = {**slices["train"], "seed": seed}
        inputs: dict[str, Job] = {}
        files: dict[str, str] = {}
        self._text(config.corpus, slices, inputs, files)
        inputs |= training if neural.transcripts else {}
        inputs |= {f"held_out/{name.partition('/')[2]}": job for name, job in held_out.items()}
        if neural.unit != "word":
            inputs["tokenizer"] = tokenizer
        return self.make("neural_lm", neural.label(), slices, inputs, files)

    def _text(
        self, corpus: schema.Corpus, slices: Tree, inputs: dict[str, Job], files: dict[str, str]
    ) -> None:
        """The corpus' text: an archive, or a file of one's own, known by its digest."""
        part = corpus.text
        if part is None:
            return
        if self.datasets.part(corpus.name, part).text is None:
            inputs["text"] = self.archive(corpus, part)
        else:
            slices["content"] = self.datasets.content(corpus.name, part)
            files["text"] = self.datasets.path(corpus.name, part)

    def _ready_model(
        self,
        corpus: schema.Corpus,
        arpa: str,
        slices: Tree,
        inputs: dict[str, Job],
        files: dict[str, str],
    ) -> None:
        """A part of the corpus, or a file of one's own, known by its digest."""
        part = self.datasets[corpus.name].parts.get(arpa)
        if part is not None and part.text is None:
            inputs["arpa"] = self.archive(corpus, arpa)
            return
        if part is not None:
            slices["arpa"] = self.datasets.content(corpus.name, arpa)
            files["arpa"] = self.datasets.path(corpus.name, arpa)
            return
        path = str(Path(arpa).expanduser())
        if path not in self.datasets.digests:
            self.datasets.digests[path] = content_digest(self.datasets.project / path)
        slices["arpa"], files["arpa"] = self.datasets.digests[path], path

    def measure(self, name: str, experiments: list[Experiment], how: schema.Measure) -> Job:
        """Equal models are measured once; what they are called changes nothing."""
        models = {}
        for experiment in experiments:
            measured = measured_model(experiment.config)
            models[measured_digest(measured)] = measured.model_dump(mode="json")
        return self.make("measure", name, {**how.model_dump(mode="json"), "models": models}, {})

    def features(self, config: schema.Experiment, name: str) -> Job:
        slices = {**config.features.model_dump(mode="json"), "part": name}
        if name not in config.corpus.train:
            slices["speeds"] = [1.0]
        label = f"{name}-{config.features.kind}"
        part = self.datasets.part(config.corpus.name, name)
        if part.manifest is None:
            return self.make(
                "features", label, slices, {"archive": self.archive(config.corpus, name)}
            )
        slices["content"] = self.datasets.content(config.corpus.name, name)
        slices["split"] = part.split
        files = {"manifest": self.datasets.path(config.corpus.name, name)}
        return self.make("features", label, slices, {}, files)

    def archive(self, corpus: schema.Corpus, part: str) -> Job:
        slices: Tree = {"corpus": corpus.name, "part": part}
        places: Tree = {}
        if self.datasets[corpus.name].builtin:
            slices["sample"] = corpus.sample.model_dump(mode="json")
        else:
            source = self.datasets.source(corpus.name, part)
            slices["source"] = source.model_dump(mode="json")
            places["urls"] = self.datasets.urls(corpus.name, part)
            places["bytes"] = self.datasets.part(corpus.name, part).bytes
        return self.make("archive", f"{corpus.name}-{part}", slices, {}, places=places)
