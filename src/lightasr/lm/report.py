"""What each language model of a plan costs, and how well it foretells the held-out transcripts."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kenlm

from lightasr import schema
from lightasr.errors import LightasrError
from lightasr.jobs import Job
from lightasr.lm.ngram import ARPA, BINARY, SUMMARY
from lightasr.lm.units import Units
from lightasr.plan import Plan
from lightasr.progress import track
from lightasr.text.tokenizers import load_tokenizer
from lightasr.text.transcripts import FEATURES, read_transcripts

WIDTH = 80
SHOWN_ROWS = 5
NAMES = {"word": "words", "char": "letters", "piece": "pieces"}


@dataclass(frozen=True)
class PartScore:
    """How well a model foretells the transcripts of a part, ends of sentences included."""

    part: str
    sentences: int
    units: int
    """Words, or symbols."""
    unknown: int
    """Units that the model does not know."""
    perplexity: float
    """Of a unit, unknown ones as likely as `<unk>`."""
    perplexity_known: float
    """Without the unknown ones."""
    bits_per_character: float
    """Spaces and ends of sentences included; comparable between units where none is unknown."""


@dataclass(frozen=True)
class ModelReport:
    """A model that is made; what an older one did not record is None."""

    id: str
    rows: list[str]
    """Experiments that decode with it, as `study/name`."""
    unit: str
    order: int
    words: int
    counts: dict[str, int]
    weight: float | None
    """Of the text, or the ready model, beside the transcripts."""
    bytes: int
    """Of KenLM's file."""
    arpa_bytes: int | None
    seconds: float
    parts: list[PartScore]


@dataclass(frozen=True)
class NeuralReport:
    """A neural model that is made; it was scored when it was."""

    id: str
    rows: list[str]
    """Experiments that have it, as `study/name`."""
    unit: str
    layers: str
    """What it consists of, `3 x 192 lstm`."""
    units: int
    params: int
    seconds: float
    parts: dict[str, dict[str, float]]
    """By part: sentences, words, units, unknown, perplexity of a word and of a unit, bits."""


@dataclass(frozen=True)
class LanguageModels:
    """The models of a plan, and the ids of those that are not made yet."""

    scale: str
    made: list[ModelReport]
    neural: list[NeuralReport]
    missing: list[str]


def report(plan: Plan) -> LanguageModels:
    """Score every n-gram that is made on the dev and test parts it is used for."""
    jobs = plan.of_stage("lm") + plan.of_stage("neural_lm")
    made = [job for job in jobs if job.done(plan.project)]
    with track("lm report") as bar:
        found, neural = [], []
        for job in made:
            if job.stage == "lm":
                found.append(_model(plan, job))
            else:
                neural.append(_neural_model(plan, job))
            bar.update(1, model=job.id)
    missing = [job.id for job in jobs if job not in made]
    return LanguageModels(plan.scale, found, neural, missing)


def report_text(found: LanguageModels) -> str:
    """A block a model, 80 columns wide."""
    lines = [f"scale {found.scale}"]
    for model in found.made:
        lines += ["", *_model_lines(model)]
    for neural in found.neural:
        lines += ["", *_neural_lines(neural)]
    if found.missing:
        make = "snakemake --profile profiles/local -- lm neural_lm"
        lines += ["", f"not made yet (`{make}` makes them):"]
        lines += [f"  {name}" for name in found.missing]
    if not (found.made or found.neural or found.missing):
        lines += ["", "no experiment decodes with a language model"]
    return "\n".join(lines)


def _model(plan: Plan, job: Job) -> ModelReport:
    folder = plan.project / job.dir
    summary = _summary(folder / SUMMARY)
    tokenizer = job.inputs.get("tokenizer")
    loaded = load_tokenizer(plan.project / tokenizer.dir) if tokenizer else None
    units = Units(schema.Text(**job.config["text"]), loaded)
    model = _load(folder / BINARY)
    parts = [
        score_part(model, units, name, read_transcripts(plan.project / features.dir))
        for name, features in _held_out(plan, job)
        if features.done(plan.project)
    ]
    arpa = folder / ARPA
    return ModelReport(
        id=job.id,
        rows=_rows(plan, job),
        unit=summary.get("unit", "word"),
        order=summary["order"],
        words=summary["words"],
        counts=summary["counts"],
        weight=summary.get("weight"),
        bytes=summary["bytes"],
        arpa_bytes=arpa.stat().st_size if arpa.exists() else None,
        seconds=summary["seconds"],
        parts=parts,
    )


def _neural_model(plan: Plan, job: Job) -> NeuralReport:
    receipt, recurrent = _summary(plan.project / job.receipt), job.config["recurrent"]
    return NeuralReport(
        id=job.id,
        rows=_rows(plan, job),
        unit=job.config["unit"],
        layers=f"{recurrent['layers']} x {recurrent['dim']} {recurrent['unit']}",
        units=receipt["units"],
        params=receipt["params"],
        seconds=receipt["seconds"],
        parts=receipt["parts"],
    )


def _rows(plan: Plan, job: Job) -> list[str]:
    return [
        f"{experiment.study}/{experiment.name}"
        for experiment in plan.experiments
        if any(job in (run.decode.inputs.get("lm"), run.neural_lm) for run in experiment.runs)
    ]


def _held_out(plan: Plan, job: Job) -> list[tuple[str, Job]]:
    """The dev part, then the others, that are decoded with a model."""
    found: dict[str, tuple[str, Job]] = {}
    for decode in plan.of_stage("decode"):
        if decode.inputs.get("lm") is job:
            names = [FEATURES + decode.config["dev"], *decode.inputs]
            for name in names:
                if name.startswith(FEATURES):
                    features = decode.inputs[name]
                    found.setdefault(features.id, (name.removeprefix(FEATURES), features))
    return list(found.values())


def _summary(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise LightasrError(
            f"{path}: not readable ({error}): run `lightasr verify lm --discard`, then the "
            "workflow again"
        ) from error


def _load(path: Path) -> kenlm.Model:
    try:
        return kenlm.Model(str(path))
    except OSError as error:
        raise LightasrError(f"{path}: not a language model KenLM can read: {error}") from error


def score_part(
    model: kenlm.Model, units: Units, part: str, transcripts: Iterable[tuple[str, str]]
) -> PartScore:
    """Score the transcripts of a part."""
    sentences = characters = said = unknown = 0
    all_logp = known_logp = 0.0
    for _, text in transcripts:
        sentence = units.written(text)
        spelt = units.split_with_unknown(sentence)
        sentences += 1
        said += len(spelt)
        characters += len(sentence) + 1
        for logp, _, is_unknown in model.full_scores(" ".join(spelt)):
            all_logp += logp
            known_logp += 0.0 if is_unknown else logp
            unknown += is_unknown
    if not sentences:
        raise LightasrError(f"{part}: no transcript to score a language model on")
    return PartScore(
        part=part,
        sentences=sentences,
        units=said,
        unknown=unknown,
        perplexity=10 ** (-all_logp / (said + sentences)),
        perplexity_known=10 ** (-known_logp / (said + sentences - unknown)),
        bits_per_character=-all_logp / math.log10(2) / characters,
    )


def _model_lines(model: ModelReport) -> Iterator[str]:
    sizes = _size(model.bytes)
    if model.arpa_bytes is not None:
        sizes += f" (ARPA {_size(model.arpa_bytes)})"
    what = f"{model.order}-gram of {model.words:,} {NAMES[model.unit]}"
    counts = ", ".join(f"{count:,}" for count in model.counts.values())
    facts = [
        f"used by {_named(model.rows)}",
        f"{what}, {sizes}, made in {model.seconds:.1f} s",
        f"n-grams of order 1 to {model.order}: {counts}",
    ]
    if model.weight is not None:
        facts.append(f"weight {model.weight:.3f}, of the transcripts {1 - model.weight:.3f}")
    yield model.id
    yield from _filled(facts)
    if not model.parts:
        yield "  no features of a dev or test part to score it on yet"
        return
    yield from _aligned(
        [
            ("part", "sentences", NAMES[model.unit], "unknown", "ppl", "ppl known", "bits/char"),
            *(
                (
                    score.part,
                    f"{score.sentences:,}",
                    f"{score.units:,}",
                    f"{score.unknown / max(score.units, 1):.2%}",
                    f"{score.perplexity:.2f}",
                    f"{score.perplexity_known:.2f}",
                    f"{score.bits_per_character:.3f}",
                )
                for score in model.parts
            ),
        ]
    )


def _neural_lines(model: NeuralReport) -> Iterator[str]:
    """Its parts as those of an n-gram; the perplexity of a word can be compared between units."""
    what = f"{model.layers} over {model.units:,} {NAMES[model.unit]}"
    yield model.id
    yield from _filled(
        [
            f"used by {_named(model.rows)}",
            f"{what}, {model.params / 1e6:.2f} M parameters, made in {model.seconds:.1f} s",
        ]
    )
    yield from _aligned(
        [
            ("part", "sentences", NAMES[model.unit], "unknown", "ppl", "ppl word", "bits/char"),
            *(
                (
                    part,
                    f"{score['sentences']:,}",
                    f"{score['units']:,}",
                    f"{score['unknown'] / max(score['units'], 1):.2%}",
                    f"{score['unit_perplexity']:.2f}",
                    f"{score['perplexity']:.2f}",
                    f"{score['bits_per_character']:.3f}",
                )
                for part, score in model.parts.items()
            ),
        ]
    )


def _named(rows: Sequence[str]) -> str:
    more = len(rows) - SHOWN_ROWS
    return ", ".join(rows[:SHOWN_ROWS]) + (f" and {more} more" if more > 0 else "")


def _filled(facts: Iterable[str]) -> Iterator[str]:
    for fact in facts:
        yield textwrap.fill(fact, WIDTH, initial_indent="  ", subsequent_indent="    ")


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The first column to the left, numbers to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for name, *numbers in rows:
        cells = [name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])]
        yield f"  {'  '.join(cells)}"


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
