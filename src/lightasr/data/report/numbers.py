"""The numbers of `lightasr data report`: what the parts of a plan hold, and what looks wrong."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lightasr import schema
from lightasr.data.report.content import (
    LISTED,
    LONG_TEXT,
    Corpus,
    DataReport,
    Histogram,
    Listed,
    Missing,
    OutOfVocabulary,
    Outside,
    Overlap,
    Part,
    Reason,
    Repeated,
    RepeatedText,
    Role,
    SameAudio,
    SameText,
    SpeechRate,
    Spread,
    Suspect,
)
from lightasr.data.report.findings import findings
from lightasr.data.report.reading import Table, Tables
from lightasr.errors import LightasrError
from lightasr.jobs import Job
from lightasr.plan import Experiment, Plan
from lightasr.progress import track
from lightasr.score.study import read_run
from lightasr.text.transcripts import FEATURES

EXAMPLES = 10
# An utterance this many times faster or slower than its part's median is suspicious, after it was
# granted a word more or less and so much silence more or less: short ones are counted coarsely.
FAR = 2.0
DOUBT_WORDS, DOUBT_SECONDS = 1, 1.0
BARS = 40


def data_report(plan: Plan) -> DataReport:
    """Read the manifests of all parts of the plan whose features are there."""
    readings = _readings(plan)
    studies = ",".join(study.name for study in plan.studies)
    overrides = f"scale={plan.scale} studies={studies}"
    make = f"snakemake --profile profiles/local --config {overrides} -- features"
    there = {
        (plan.project / job.dir, reading.config.text)
        for reading in readings
        for job in reading.jobs.values()
        if job.done(plan.project)
    }
    if not there:
        raise LightasrError(f"scale {plan.scale}: no part has features yet: run `{make}` first")
    utterances = sum(read_run(directory).get("utterances", 0) for directory, _ in there)
    with track(f"data report {plan.scale}", utterances) as bar:
        tables = Tables(plan.project, bar)
        corpora = [_corpus(plan.project, reading, tables) for reading in readings]
    return DataReport(plan.scale, make if any(c.missing for c in corpora) else None, corpora)


# --- which parts, read how ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """Parts, how their audio and text is read, and who asks for it."""

    config: schema.Experiment
    jobs: dict[str, Job]
    experiments: list[str]

    @property
    def roles(self) -> dict[str, Role]:
        corpus = self.config.corpus
        train: dict[str, Role] = dict.fromkeys(corpus.train, "train")
        return {**train, corpus.dev: "dev", **dict.fromkeys(corpus.test, "test")}


def _readings(plan: Plan) -> list[_Reading]:
    """Experiments that differ in their models, or in the kind of features, share a reading."""
    found: dict[str, _Reading] = {}
    for experiment in plan.experiments:
        config, jobs = experiment.config, _features(experiment)
        decides = [
            config.corpus.model_dump(mode="json"),
            config.text.model_dump(mode="json"),
            [config.tokenizer.alphabet, config.tokenizer.max_outside],
            [config.features.sample_rate, config.features.max_seconds],
        ]
        reading = found.setdefault(json.dumps(decides), _Reading(config, dict(jobs), []))
        reading.experiments.append(f"{experiment.study}/{experiment.name}")
        for part, job in jobs.items():
            if job.done(plan.project) and not reading.jobs[part].done(plan.project):
                reading.jobs[part] = job
    return list(found.values())


def _features(experiment: Experiment) -> dict[str, Job]:
    run = experiment.runs[0]
    inputs = {**run.train.inputs, **run.decode.inputs}
    return {
        name.removeprefix(FEATURES): job
        for name, job in inputs.items()
        if name.startswith(FEATURES)
    }


def _corpus(project: Path, reading: _Reading, tables: Tables) -> Corpus:
    config, roles = reading.config, reading.roles
    done = {name: reading.jobs[name] for name in roles if reading.jobs[name].done(project)}
    parts = {name: tables.of(job, config.text) for name, job in done.items()}
    splits = {name: table for name, table in parts.items() if roles[name] != "train"}
    train = None
    if all(name in parts for name in config.corpus.train):
        train = Table.joined([parts[name] for name in config.corpus.train])
        name = config.corpus.train[0] if len(config.corpus.train) == 1 else "train"
        splits = {name: train, **splits}
    alphabet = config.tokenizer.alphabet
    if alphabet is None and train is not None:
        alphabet = "".join(sorted(train.characters))
    lengths = _edges([table.rows["seconds"] for table in parts.values()])
    rates = _edges([_words_per_minute(table.rows) for table in parts.values()])
    corpus = Corpus(
        name=config.corpus.name,
        experiments=reading.experiments,
        alphabet=alphabet,
        missing=[
            Missing(name, role, reading.jobs[name].dir)
            for name, role in roles.items()
            if name not in done
        ],
        findings=[],
        parts=[
            Part(
                name=name,
                role=roles[name],
                directory=done[name].dir,
                **_sizes(table, lengths),
                rate=_speech_rate(table.rows, rates),
                oov=_out_of_vocabulary(table, train) if train and roles[name] != "train" else None,
                outside=None if alphabet is None else _outside(table, alphabet),
                **_receipt(project / done[name].dir),
            )
            for name, table in parts.items()
        ],
        repeated=[Repeated(name, _repeated_audio(table.rows)) for name, table in splits.items()],
        overlaps=[
            _overlap(of, splits[of].rows, split, splits[split].rows)
            for of, split in _pairs(list(splits), config.corpus, train is not None)
        ],
    )
    return replace(corpus, findings=list(findings(corpus, config)))


def _pairs(splits: list[str], corpus: schema.Corpus, trained: bool) -> list[tuple[str, str]]:
    """What must have nothing in common: training with the rest, and dev with the tests."""
    train = [(splits[0], other) for other in splits[1:]] if trained else []
    return train + [(corpus.dev, test) for test in corpus.test if {corpus.dev, test} <= {*splits}]


# --- the numbers of a part ----------------------------------------------------------------------


def _sizes(table: Table, length_edges: list[float]) -> dict[str, Any]:
    rows = table.rows
    return {
        "utterances": len(rows),
        "hours": float(rows["seconds"].sum()) / 3600,
        "speakers": int(rows["speaker"].nunique()),
        "seconds": Spread.of(rows["seconds"]),
        "lengths": _histogram(rows["seconds"], length_edges),
        "words": int(rows["words"].sum()),
        "vocabulary": len(table.vocabulary),
        "texts": int(rows["text"].nunique()),
        "empty": Listed.of(rows.loc[rows["words"] == 0, "id"].tolist()),
        "characters": dict(table.characters.most_common()),
        "digests": int(rows["digest"].notna().sum()),
    }


def _receipt(directory: Path) -> dict[str, Any]:
    """What the stage `features` recorded of a part."""
    run = read_run(directory)
    rejected = _rejected(directory / "rejected.tsv")
    return {
        "sample_rates": run.get("sample_rates"),
        "channels": run.get("channels"),
        "rejected": len(rejected),
        "reasons": _reasons(rejected),
    }


def _rejected(path: Path) -> list[tuple[str, str]]:
    """Ids and reasons."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise LightasrError(f"{path}: not readable: {error}") from None
    return [(name, reason) for name, _, reason in (line.partition("\t") for line in lines if line)]


def _reasons(rejected: list[tuple[str, str]]) -> list[Reason]:
    """Utterances by reason; reasons that differ in a name or a number alone are one."""
    groups: dict[str, dict[str, list[str]]] = {}
    for name, reason in rejected:
        said = re.sub(rf"(?<!\S){re.escape(name)}(?!\w)", "…", reason.removeprefix(f"{name}: "))
        groups.setdefault(re.sub(r"\S*\d\S*", "…", said), {}).setdefault(said, []).append(name)
    reasons = [
        Reason(
            (next(iter(group)) if len(group) == 1 else pattern).rstrip("."),
            Listed.of([name for names in group.values() for name in names]),
        )
        for pattern, group in groups.items()
    ]
    return sorted(reasons, key=lambda reason: (-reason.utterances.count, reason.reason))


def _words_per_minute(rows: pd.DataFrame) -> pd.Series:
    return 60 * rows["words"] / rows["seconds"]


def _speech_rate(rows: pd.DataFrame, edges: list[float]) -> SpeechRate:
    if (rows["words"] > 0).any():  # those without a word are told apart
        rows = rows[rows["words"] > 0]
    rates = _words_per_minute(rows)
    median = float(rates.median())
    least_words, most_words = rows["words"] - DOUBT_WORDS, rows["words"] + DOUBT_WORDS
    fast = 60 * least_words > FAR * median * (rows["seconds"] + DOUBT_SECONDS)
    slow = 60 * most_words < median / FAR * (rows["seconds"] - DOUBT_SECONDS)
    far = np.abs(np.log(rates[fast | slow] / median)).sort_values(ascending=False)
    listed = rows.assign(rate=rates).loc[far.index[:LISTED]]
    return SpeechRate(
        spread=Spread.of(rates),
        histogram=_histogram(rates, edges),
        fast=int(fast.sum()),
        slow=int(slow.sum()),
        suspects=[
            Suspect(row["id"], row["seconds"], row["rate"], row["text"])
            for row in listed.to_dict("records")
        ],
    )


def _out_of_vocabulary(table: Table, train: Table) -> OutOfVocabulary:
    counts = {
        word: count
        for word, count in table.vocabulary.most_common()
        if word not in train.vocabulary
    }
    words = sum(counts.values())
    return OutOfVocabulary(
        words=words,
        share=words / max(table.vocabulary.total(), 1),
        different=len(counts),
        examples=dict(list(counts.items())[:EXAMPLES]),
    )


def _outside(table: Table, alphabet: str) -> Outside:
    strange = table.characters.keys() - set(alphabet)
    counts = {char: n for char, n in table.characters.most_common() if char in strange}
    if not strange:
        return Outside({}, Listed.of([]))
    pattern = f"[{re.escape(''.join(strange))}]"
    has = table.rows["text"].str.contains(pattern)
    return Outside(counts, Listed.of(table.rows.loc[has, "id"].tolist()))


def _edges(values: list[pd.Series]) -> list[float]:
    """Bins for all parts together: round steps up to where all but a few utterances are."""
    top = max([1.0, *(float(series.quantile(0.995)) for series in values)])
    size = 10 ** np.floor(np.log10(top / BARS))
    step = next(step for step in (1, 2, 2.5, 5, 10) if top / (step * size) <= BARS) * size
    return [round(float(step * i), 9) for i in range(int(np.ceil(top / step)) + 1)]


def _histogram(values: pd.Series, edges: list[float]) -> Histogram:
    inside = values.clip(edges[0], edges[-1])
    return Histogram(edges, np.histogram(inside, edges)[0].tolist())


# --- what splits have in common -----------------------------------------------------------------


def _overlap(of: str, known: pd.DataFrame, split: str, asked: pd.DataFrame) -> Overlap:
    speakers = sorted(set(asked["speaker"]) & set(known["speaker"]))
    audio = None
    if known["digest"].notna().any() and asked["digest"].notna().any():
        audio = _same_audio(known, asked[asked["digest"].notna()])
    return Overlap(of, split, Listed.of(speakers), audio, _same_text(known, asked))


def _repeated_audio(rows: pd.DataFrame) -> SameAudio | None:
    recorded = rows[rows["digest"].notna()]
    if recorded.empty:
        return None
    return _same_audio(recorded, recorded[recorded.duplicated("digest")])


def _same_audio(known: pd.DataFrame, asked: pd.DataFrame) -> SameAudio:
    """The utterances asked for whose audio is known."""
    first = known[known["digest"].notna()].drop_duplicates("digest").set_index("digest")
    found = asked[asked["digest"].isin(first.index)]
    other = first.loc[found["digest"]]
    pairs = zip(found["id"].head(LISTED), other["id"].head(LISTED), strict=True)
    return SameAudio(
        utterances=len(found),
        other_text=int((found["text"].to_numpy() != other["text"].to_numpy()).sum()),
        pairs=[list(pair) for pair in pairs],
    )


def _same_text(known: pd.DataFrame, asked: pd.DataFrame) -> SameText:
    """Weighed by words, too: a greeting that all begin with says nothing."""
    found = asked[asked["text"].isin(set(known["text"])) & (asked["words"] > 0)]
    texts = found.groupby("text").agg(words=("words", "first"), utterances=("words", "size"))
    longest = texts.reset_index().sort_values(["words", "text"], ascending=[False, True])
    return SameText(
        utterances=len(found),
        share=len(found) / len(asked),
        share_of_words=float(found["words"].sum() / max(asked["words"].sum(), 1)),
        long=int((found["words"] >= LONG_TEXT).sum()),
        examples=[
            RepeatedText(row["text"], int(row["words"]), int(row["utterances"]))
            for row in longest.head(EXAMPLES).to_dict("records")
        ],
    )
