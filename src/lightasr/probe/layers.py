"""Stage `probe`: what each layer of a frozen encoder knows, by linear probes of its outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from lightasr import schema
from lightasr.cost.timing import torch_threads
from lightasr.data.batches import FeatureStore, Utterance, plan_batches, read_utterances
from lightasr.errors import LightasrError
from lightasr.files import write_atomically
from lightasr.invalid import Layer, check
from lightasr.models.asr import AcousticModel, Normalizer
from lightasr.models.layers import Layered, valid_mask
from lightasr.models.pretrained import begin_with
from lightasr.models.registry import component
from lightasr.probe import linear
from lightasr.probe.figure import Row, figure
from lightasr.probe.scores import Score, accuracy, mean_average_precision
from lightasr.probe.tasks import Bools, Question, Rows, ask, evenly, varies
from lightasr.progress import Bar, track
from lightasr.schema import Probe, ProbeTask
from lightasr.score import early
from lightasr.threads import usable_cores
from lightasr.train.pretraining import Spread

BATCH_SECONDS = 120.0
PRECISION = "mean average precision"


def run(
    config: schema.ProbeSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """`probes.json`, `probes.svg`, and `early.json`: statistics that need no labels."""
    with torch_threads(usable_cores()):
        return _run(config, inputs, out, f"probe {work.name}")


def _run(
    config: schema.ProbeSlice, inputs: Mapping[str, Path], out: Path, title: str
) -> dict[str, Any]:
    frozen, pretrained = load_frozen(inputs)
    learnt = evenly(read(inputs, config.train), config.utterances)
    tests = {part: evenly(read(inputs, (part,)), config.utterances) for part in config.test}
    questions = [ask(task, learnt, tests) for task in config.tasks]
    asked = [each for utterances in tests.values() for each in utterances]
    utterances = [*learnt, *asked]
    speakers = np.array([each.speaker for each in utterances])
    encoding, layers = 2 * len(utterances) + len(asked), 1 + frozen.depth
    with track(title, total=encoding) as bar:
        raw_nd = pool(as_packed, utterances, bar, by_speaker=False)[0]
        pooled = pool(frozen.states, utterances, bar, frozen.by_speaker)
        ranks = effective_ranks(frozen, asked, bar)
    rows: list[Row] = []
    with track(f"{title} probes", total=len(questions) * (1 + layers)) as bar:
        for question in questions:
            baseline = answers(question, raw_nd, speakers, config)
            bar.update()
            for layer, x_nd in enumerate(pooled):
                found = answers(question, x_nd, speakers, config)
                rows += table(question, layer, found, baseline)
                bar.update()
    write_json(
        out / "probes.json",
        {"tasks": list(map(described, questions)), "probes": [row._asdict() for row in rows]},
    )
    write_json(out / "early.json", early.statistics(ranks, pretrained))
    write_atomically(out / "probes.svg", figure(rows) + "\n")
    return {
        "learnt_utterances": len(learnt),
        "asked_utterances": len(asked),
        "layers": layers,
        "best_layer": {question.task: best_layer(question.task, rows) for question in questions},
    }


def write_json(path: Path, tree: Any) -> None:
    write_atomically(path, json.dumps(tree, indent=1) + "\n")


def described(question: Question) -> dict[str, Any]:
    """What a task was, in numbers."""
    return {
        "task": question.task,
        "classes": list(question.names),
        "fit": len(question.fit.at),
        "tune": len(question.tune.at),
        "test": {part: len(rows.at) for part, rows in question.tests.items()},
    }


def best_layer(task: ProbeTask, rows: Sequence[Row]) -> int:
    """That which best tells what was set apart of the training parts; of equal ones the lowest."""
    nats = {row.layer: row.nats for row in rows if row.task == task}
    return min(sorted(nats), key=nats.__getitem__)


def read(inputs: Mapping[str, Path], parts: Sequence[str]) -> list[Utterance]:
    """Utterances of some parts at their true speed, transcripts as the corpus spells them."""
    directories = []
    for part in parts:
        if (name := f"features/{part}") not in inputs:
            raise LightasrError(f"probe: no '{name}' among what the stage reads")
        directories.append(inputs[name])
    found = [each for each in read_utterances(directories, schema.Text()) if each.speed == 1]
    if not found:
        raise LightasrError(f"probe: no utterances in {', '.join(parts)}")
    return found


# --- the frozen encoder ---


class Frozen(nn.Module):
    """Normaliser, front end and encoder as they were trained, with or without labels."""

    def __init__(
        self,
        features: int,
        normalize: schema.Normalize,
        frontend: schema.Component,
        encoder: schema.Component,
    ) -> None:
        super().__init__()
        self.by_speaker = normalize == "speaker"
        self.normalizer = Normalizer(normalize, features)
        self.frontend = component("frontend", frontend)(frontend, features)
        self.encoder = component("encoder", encoder)(encoder, self.frontend.dim)
        if not isinstance(self.encoder, Layered):
            raise LightasrError(
                f"probe: encoder '{encoder.name}' shows only its last layer; derive it from Layered"
            )

    @property
    def depth(self) -> int:
        return cast(Layered, self.encoder).depth

    @torch.no_grad()
    def states(self, x_btf: Tensor, lengths_b: Tensor) -> tuple[Iterator[Tensor], Tensor]:
        """(B, T', D) of the front end, then of each layer; and how many frames are real."""
        device = next(self.parameters()).device
        x_btf, lengths_b = x_btf.to(device), lengths_b.to(device)
        x_btd, lengths_b = self.frontend(self.normalizer(x_btf, lengths_b), lengths_b)
        states = torch.no_grad()(cast(Layered, self.encoder).states)(x_btd, lengths_b)
        return iter([x_btd, *states]), lengths_b


def load_frozen(inputs: Mapping[str, Path]) -> tuple[Frozen, Path | None]:
    """The encoder of `results/train/...` or `results/pretrain/...`, and the latter's directory."""
    given = sorted({"train", "pretrain"} & inputs.keys())
    if len(given) != 1:
        raise LightasrError(
            "probe: reads one model, 'train' or 'pretrain', but is given "
            f"{' and '.join(given) or 'none'}"
        )
    directory = inputs[given[0]]
    path = directory / "config.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LightasrError(f"{path}: not readable: {error}") from None
    layers = [Layer(str(path), None, tree)]
    model: schema.Model | schema.PretrainSlice
    if given == ["train"]:
        trained = check(schema.TrainSlice, tree, layers)
        features, model = trained.features.dim, trained.model
    else:
        model = check(schema.PretrainSlice, tree, layers)
        features = model.features.dim
    frozen = Frozen(features, model.normalize, model.frontend, model.encoder)
    begin_with(cast(AcousticModel, frozen), directory)  # it has the parts that are taken over
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return frozen.eval().to(device), directory if given == ["pretrain"] else None


Reader = Callable[[Tensor, Tensor], tuple[Iterable[Tensor], Tensor]]


def as_packed(x_btf: Tensor, lengths_b: Tensor) -> tuple[Iterable[Tensor], Tensor]:
    """Features as one layer."""
    return [x_btf], lengths_b


def pool(reader: Reader, utterances: list[Utterance], bar: Bar, by_speaker: bool) -> list[Tensor]:
    """(N, 2 D) of each layer: the mean of an utterance's frames beside their maximum."""
    batches = plan_batches([utterance.seconds for utterance in utterances], BATCH_SECONDS)
    pieces: list[list[Tensor]] = []
    for batch in FeatureStore(by_speaker).stream(utterances, batches):
        states, lengths_b = reader(batch.features_btf, batch.lengths_b)
        pieces.append([mean_and_max(x_btd, lengths_b).cpu() for x_btd in states])
        bar.update(len(batch.utterances))
    back = torch.tensor([row for batch in batches for row in batch]).argsort()
    return [torch.cat(layer)[back] for layer in zip(*pieces, strict=True)]


def mean_and_max(x_btd: Tensor, lengths_b: Tensor) -> Tensor:
    """(B, 2 D) over the frames that are real."""
    padding_bt1 = ~valid_mask(lengths_b, x_btd.shape[1])[:, :, None]
    x_btd = x_btd.double()
    mean_bd = x_btd.masked_fill(padding_bt1, 0).sum(1) / lengths_b[:, None]
    return torch.cat([mean_bd, x_btd.masked_fill(padding_bt1, -torch.inf).amax(1)], dim=1).float()


def effective_ranks(frozen: Frozen, utterances: list[Utterance], bar: Bar) -> list[float]:
    """In how many directions the frames of each layer vary."""
    batches = plan_batches([utterance.seconds for utterance in utterances], BATCH_SECONDS)
    spreads: list[Spread] = []
    for batch in FeatureStore(frozen.by_speaker).stream(utterances, batches):
        states, lengths_b = frozen.states(batch.features_btf, batch.lengths_b)
        for layer, x_btd in enumerate(states):
            if layer == len(spreads):
                spreads.append(Spread(x_btd.shape[2], x_btd.device))
            spreads[layer].add(x_btd, lengths_b)
        bar.update(len(batch.utterances))
    return [spread.rank() for spread in spreads]


# --- what probes answer ---


class Answers(NamedTuple):
    """How well probes of the same vectors tell the labels of each part."""

    chosen: linear.Strength
    true: dict[str, Score]
    shuffled: dict[str, float]


def answers(
    question: Question, pooled_nd: Tensor, speakers: np.ndarray[Any, Any], config: Probe
) -> Answers:
    """Probes of pooled vectors: of true labels, and of shuffled ones by the same penalty."""
    if question.task != "characters":
        pooled_nd = pooled_nd[:, : pooled_nd.shape[1] // 2]  # the means
    x_nd = pooled_nd.to("cuda" if torch.cuda.is_available() else "cpu", torch.float64)

    def vectors(rows: Rows) -> Tensor:
        return x_nd[torch.from_numpy(rows.at).to(x_nd.device)]

    def labels(rows: Rows) -> Tensor:
        return torch.from_numpy(rows.labels).to(x_nd.device)

    fit, tune, learnt = question.fit, question.tune, question.learnt
    chosen = linear.strength(vectors(fit), labels(fit), vectors(tune), labels(tune), config.l2)

    def told(probe: linear.Probe, rows: Rows) -> Score:
        scores_nc = probe.scores(vectors(rows)).cpu()
        said_by = speakers[rows.at].tolist()
        if rows.labels.ndim == 1:
            right_n = scores_nc.argmax(1).numpy() == rows.labels
            return accuracy(right_n, said_by, config.samples, config.seed)
        asked_c = varies(rows.labels)
        said_nc = cast(Bools, rows.labels)[:, asked_c]
        return mean_average_precision(
            scores_nc.numpy()[:, asked_c], said_nc, said_by, config.samples, config.seed
        )

    def of(rows: Rows) -> dict[str, Score]:
        probe = linear.fit(vectors(rows), labels(rows), chosen.l2)
        return {part: told(probe, test) for part, test in question.tests.items()}

    rng = np.random.default_rng(config.seed)
    chance = [
        of(learnt._replace(labels=rng.permutation(learnt.labels))) for _ in range(config.shuffles)
    ]
    return Answers(
        chosen,
        of(learnt),
        {
            part: float(np.mean([scores[part].value for scores in chance]))
            for part in question.tests
        },
    )


def table(question: Question, layer: int, found: Answers, baseline: Answers) -> list[Row]:
    """A layer's rows, a part each."""
    measure = PRECISION if question.task == "characters" else "accuracy"
    return [
        Row(
            task=question.task,
            part=part,
            layer=layer,
            measure=measure,
            accuracy=score.value,
            low=score.low,
            high=score.high,
            baseline=baseline.true[part].value,
            shuffled=found.shuffled[part],
            l2=found.chosen.l2,
            nats=found.chosen.nats,
        )
        for part, score in found.true.items()
    ]
