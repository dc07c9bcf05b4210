"""What a job will need of memory and time, for a cluster to reserve: foreseen from the config.

Generous on purpose: a job that asks for too much waits longer, one that asks for too little is
killed. No figure here is a measurement of a result; those stand in each `run.json`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lightasr.jobs import Job

# Sites seldom let a job run longer than a day. A training that needs longer saves at its time
# limit, and the profile's retries submit it again.
MOST_MINUTES = 20 * 60
LEAST_MINUTES = 10
# Of LibriSpeech's FLACs; and what to think of recordings that nobody has counted yet.
ARCHIVE_MB_PER_HOUR = 64
UNKNOWN_HOURS = 100
# Of a slow line, and times faster than the recordings last.
DOWNLOAD_MB_PER_MINUTE = 60
FEATURES_SPEED = 100
TRAINING_SPEED = 100
SEARCH_SPEED = 10
LANGUAGE_MB_PER_MINUTE = 1
SYNTHESIS_SPEED = 40
MEASURED_MB_PER_SECOND = 100
# Of 512 numbers, 50 times a second; and of a hundred passes over them.
CLUSTERED_MB_PER_HOUR = 400
CLUSTERING_MINUTES_PER_HOUR = 4
# Of an interpreter that has imported torch, and the Snakemake around it.
BASE_MB = 2000


class Needs(NamedTuple):
    """Of a first attempt."""

    mem_mb: int
    minutes: int


@cache
def foresee(job: Job, project: Path) -> Needs:
    """Memory and minutes of one job."""
    memory, minutes = {
        "archive": _archive,
        "features": _features,
        "labels": _tokenizer,
        "tokenizer": _tokenizer,
        "lm": _language_model,
        "neural_lm": _neural_language_model,
        "cluster": _clustering,
        "pretrain": _training,
        "train": _training,
        "probe": _probing,
        "decode": _decoding,
        "score": _scoring,
        "measure": _measuring,
    }[job.stage](job, project)
    return Needs(round(memory), min(MOST_MINUTES, LEAST_MINUTES + round(minutes)))


def _archive(job: Job, project: Path) -> tuple[float, float]:
    if job.places:
        return BASE_MB, (job.places.get("bytes") or 0) / 1e6 / DOWNLOAD_MB_PER_MINUTE
    return BASE_MB, 60 * hours_of(job, project) / SYNTHESIS_SPEED


def _features(job: Job, project: Path) -> tuple[float, float]:
    return BASE_MB + 1000, 60 * hours_of(job, project) / FEATURES_SPEED


def _tokenizer(job: Job, project: Path) -> tuple[float, float]:
    return BASE_MB + 4 * _hours_of_inputs(job, project), 0.1 * _hours_of_inputs(job, project)


def _language_model(job: Job, project: Path) -> tuple[float, float]:
    """Sorting takes up to 4 GB; a pruned model of all of LibriSpeech's text takes as much again."""
    megabytes = _text_megabytes(job)
    return BASE_MB + 1000 + min(9000, 8 * megabytes), megabytes / 4


def _neural_language_model(job: Job, project: Path) -> tuple[float, float]:
    """Four bytes for each letter of the text, packed threefold; a batch's scores of all units."""
    train, megabytes = job.config["train"], _text_megabytes(job) + _hours_of_inputs(job, project)
    units = job.config["vocabulary"] if job.config["unit"] == "word" else 1000
    return (
        BASE_MB + 16 * megabytes + 16e-6 * train["batch_units"] * units,
        train["epochs"] * megabytes / LANGUAGE_MB_PER_MINUTE,
    )


def _training(job: Job, project: Path) -> tuple[float, float]:
    """Where there is no GPU, a batch's activations lie in the same memory."""
    train, hours = job.config["train"], _hours_of_inputs(job, project)
    return (
        BASE_MB + 2 * hours + 15 * train["batch_seconds"],
        60 * hours * train["epochs"] / TRAINING_SPEED,
    )


def _clustering(job: Job, project: Path) -> tuple[float, float]:
    """The frames that clusters are found in are kept in memory; all are encoded once."""
    hours = _hours_of_inputs(job, project)
    found = min(hours, job.config["hours"])
    return (
        BASE_MB + 1000 + 2 * hours + CLUSTERED_MB_PER_HOUR * found,
        60 * hours / TRAINING_SPEED + CLUSTERING_MINUTES_PER_HOUR * found,
    )


def _decoding(job: Job, project: Path) -> tuple[float, float]:
    text = _text_megabytes(job.inputs["lm"]) if "lm" in job.inputs else 0
    hours = _hours_of_inputs(job, project)
    return BASE_MB + 1000 + min(9000, 4 * text), 60 * hours / SEARCH_SPEED


def _probing(job: Job, project: Path) -> tuple[float, float]:
    return BASE_MB + 2000, 30 + 60 * _hours_of_inputs(job, project) / FEATURES_SPEED


def _scoring(job: Job, project: Path) -> tuple[float, float]:
    return BASE_MB, 0


def _measuring(job: Job, project: Path) -> tuple[float, float]:
    """Attention over the longest utterance takes most; one after the other is measured."""
    seconds, models = job.config["seconds"], len(job.config["models"])
    return BASE_MB + MEASURED_MB_PER_SECOND * max(seconds), models * sum(seconds) / 60


def _text_megabytes(lm: Job) -> float:
    """Of the text as it is stored; transcripts are small beside any text."""
    source = lm.inputs.get("text") or lm.inputs.get("arpa")
    return (source.places.get("bytes") or 0) / 1e6 if source else 0


def _hours_of_inputs(job: Job, project: Path) -> float:
    """All recordings that a job reads."""
    return sum(hours_of(made, project) for made in job.inputs.values() if made.stage == "features")


def hours_of(job: Job, project: Path) -> float:
    """Recordings in an archive or in features: counted, if they are there, else estimated."""
    if job.stage == "features":
        if seconds := _counted(project / job.receipt):
            return seconds / 3600
        copies, archive = len(job.config["speeds"]), job.inputs.get("archive")
        return copies * (hours_of(archive, project) if archive else UNKNOWN_HOURS)
    if sample := job.config.get("sample"):
        kind = job.config["part"].partition("-")[0]
        return float(sample.get(f"{kind}_minutes", 0)) / 60
    stored = job.places.get("bytes")
    return stored / 1e6 / ARCHIVE_MB_PER_HOUR if stored else UNKNOWN_HOURS


def _counted(receipt: Path) -> float | None:
    """Seconds of the recordings in finished features."""
    try:
        return float(json.loads(receipt.read_text())["audio_seconds"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged, which `lightasr status` tells: an estimate does
