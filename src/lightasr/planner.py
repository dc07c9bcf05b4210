"""From an experiment to its jobs; equal jobs are made once, whoever asks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightasr import schema
from lightasr.configfile import Tree
from lightasr.datasets import Datasets, content_digest
from lightasr.jobs import Job, Run, digest
from lightasr.score.columns import LM_DECODER

NOT_OF_NAMES = re.compile(r"^[^A-Za-z0-9]+|[^A-Za-z0-9_.+-]+")


def rescores(config: schema.Experiment) -> bool:
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


def measured_pretraining(config: schema.Experiment) -> schema.MeasuredPretraining | None:
    """What of an experiment decides the costs of a step of its pretraining."""
    if config.pretrain is None:
        return None
    objective = config.pretrain.objective
    if isinstance(objective, schema.Clustered):
        fields = type(objective).model_fields
        objective = objective.model_copy(
            update={name: fields[name].default for name in objective.BEFORE}
        )
    return schema.MeasuredPretraining(
        features=config.features,
        normalize=config.model.normalize,
        frontend=config.model.frontend,
        encoder=config.model.encoder,
        objective=objective,
        precision=config.pretrain.train.precision,
    )


def measured_digest(measured: schema.MeasuredModel | schema.MeasuredPretraining) -> str:
    """How the stage `measure` calls a model, or a pretraining."""
    return digest(measured.model_dump(mode="json"))


def _by_digest(
    measured: Sequence[schema.MeasuredModel | schema.MeasuredPretraining],
) -> dict[str, Tree]:
    return {measured_digest(each): each.model_dump(mode="json") for each in measured}


class Data(NamedTuple):
    """What an experiment learns from and is judged on."""

    training: dict[str, Job]
    held_out: dict[str, Job]
    tokenizer: Job
    lm: Job | None


class Planner:
    """All jobs made so far, by id."""

    def __init__(self, datasets: Datasets) -> None:
        self.datasets = datasets
        self.made: dict[str, Job] = {}
        self.prepared: dict[tuple[Any, ...], Data] = {}

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
        data = self.data(config)
        pretrain = self.pretrain(config, data.held_out)
        slices = config.model_dump(mode="json", include={"features", "text", "tokenizer", "model"})
        slices["dev"] = config.corpus.dev
        if pretrain is not None:
            slices["finetune"] = config.finetune.model_dump(mode="json")
        trainer = config.train.model_dump(mode="json")
        searches = {
            **config.decode.model_dump(mode="json"),
            "text": slices["text"],
            "dev": slices["dev"],
        }
        scoring = config.score.model_dump(mode="json")
        return tuple(
            self.run(
                config,
                seed,
                data,
                pretrain,
                {**slices, "train": {**trainer, "seed": seed}},
                searches,
                scoring,
            )
            for seed in seeds
        )

    def data(self, config: schema.Experiment) -> Data:
        """Made once for all experiments that have the same."""
        asked = (config.corpus, config.features, config.text, config.tokenizer, config.lm)
        known = (*asked, config.decode.needs_lm)
        if known not in self.prepared:
            self.prepared[known] = self._data(config)
        return self.prepared[known]

    def _data(self, config: schema.Experiment) -> Data:
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
        return Data(training, held_out, tokenizer, lm)

    def run(
        self,
        config: schema.Experiment,
        seed: int,
        data: Data,
        pretrain: Job | None,
        slices: Tree,
        searches: Tree,
        scoring: Tree,
    ) -> Run:
        dev = f"features/{config.corpus.dev}"
        neural_lm = self.neural_lm(config, seed, slices["text"], data)
        train = self.make(
            "train",
            config.model.encoder.label(),
            slices,
            {
                **data.training,
                dev: data.held_out[dev],
                "tokenizer": data.tokenizer,
                **({"pretrain": pretrain} if pretrain else {}),
            },
        )
        decode = self.make(
            "decode",
            train.label,
            searches,
            {
                "train": train,
                **data.held_out,
                **({"lm": data.lm} if data.lm else {}),
                **({"neural_lm": neural_lm} if neural_lm and rescores(config) else {}),
            },
        )
        score = self.make("score", train.label, scoring, {"decode": decode})
        probe = self.probe(config, data, train, pretrain)
        return Run(seed, train, decode, score, neural_lm, pretrain, probe)

    def probe(
        self,
        config: schema.Experiment,
        data: Data,
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
            f"features/{part}": (data.training | data.held_out)[f"features/{part}"]
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
        if not config.decode.needs_lm:
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
        data: Data,
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
        inputs |= data.training if neural.transcripts else {}
        held_out = data.held_out.items()
        inputs |= {f"held_out/{name.partition('/')[2]}": job for name, job in held_out}
        if neural.unit != "word":
            inputs["tokenizer"] = data.tokenizer
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

    def measure(
        self,
        name: str,
        configs: list[schema.Experiment],
        how: schema.Measure,
        pretrainings: bool = False,
    ) -> Job:
        """Equal models are measured once; what they are called changes nothing."""
        slices = how.model_dump(mode="json")
        slices["models"] = _by_digest([measured_model(config) for config in configs])
        if pretrainings:
            found = [measured_pretraining(config) for config in configs]
            slices["pretrainings"] = _by_digest([each for each in found if each is not None])
        return self.make("measure", name, slices, {})

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
        if not part.transcribed:
            slices["transcribed"] = False
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
