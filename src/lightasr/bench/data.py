"""Loading, splitting and planning at the size of LibriSpeech's 960 hours, beside lhotse's sampler.

Both give as many processes batches of as many seconds of audio. A training of ours reads the
manifest once and plans each epoch from memory: the seconds are those of all processes' plans, one
after the other. lhotse reads the manifest again as it plans: the seconds are those of each process.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler
from numpy.typing import NDArray

from lightasr import schema
from lightasr.cost.timing import Measured
from lightasr.data.cuts import CUTS
from lightasr.models.asr import AcousticModel
from lightasr.text.tokenizers import CharTokenizer
from lightasr.train.corpus import TrainingCorpus

TITLE = "Batches of 281,241 utterances for 8 processes"
PROCESSES = 8
BATCH_SECONDS = 200.0  # of each process, as in icefall's LibriSpeech recipes
BUCKETS, BUFFER = 30, 30 * 7000  # lhotse's, as there


class Size(NamedTuple):
    """Of a part of the generated corpus."""

    utterances: int
    speakers: int


# LibriSpeech's parts, with the speakers of all of it in those for training.
DEV = "dev-clean"
PARTS = {
    "train-clean-100": Size(28_539, 267),
    "train-clean-360": Size(104_014, 978),
    "train-other-500": Size(148_688, 1_239),
    DEV: Size(2_703, 40),
}
CHARACTERS_PER_SECOND = 14.6
SAMPLE_RATE = 16_000
CHUNK_FRAMES = 500  # what lhotse stores as one


class Process(NamedTuple):
    """One of the processes that share a plan."""

    rank: int
    size: int


def rows() -> list[Measured]:
    """Seconds and memory of each step of ours, and of lhotse's one."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs = write_corpus(Path(scratch))
        return [*in_fresh_process(our_steps, inputs), *in_fresh_process(lhotse_sampler, inputs)]


def in_fresh_process(work: Any, inputs: dict[str, Path]) -> list[Measured]:
    """What `work` measures where nothing else has taken memory yet."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return list(pool.submit(work, inputs).result())


def our_steps(inputs: dict[str, Path]) -> list[Measured]:
    """One after the other what a training does before its first step."""
    config = schema.TrainSlice(
        features=schema.Features(),
        tokenizer=schema.Tokenizer(),
        model=schema.Model(),
        train=schema.Train(batch_seconds=BATCH_SECONDS * PROCESSES),
        dev=DEV,
    )
    clock = time.perf_counter()
    corpus = TrainingCorpus(config, inputs)
    made = [measured("lightasr: load, once", clock, utterances=len(corpus.utterances))]

    model = AcousticModel(config.model, config.features.dim, len(corpus.tokenizer.symbols))
    clock = time.perf_counter()
    corpus.set_aside_unfit(model, "bench data")
    made.append(measured("lightasr: split, once", clock, utterances=len(corpus.utterances)))

    orders: tuple[Literal["shuffled", "sortagrad"], ...] = ("shuffled", "sortagrad")
    for order in orders:
        corpus.config = corpus.config.model_copy(update={"order": order})
        clock = time.perf_counter()
        plans = [corpus.plan(0, Process(rank, PROCESSES)) for rank in range(PROCESSES)]
        row = measured(
            f"lightasr: plan an epoch, {order}", clock, utterances=len(corpus.utterances)
        )
        seconds = np.array([utterance.seconds for utterance in corpus.utterances])
        steps = [
            [seconds[part] for step in together for part in step.parts]
            for together in zip(*plans, strict=True)
        ]
        made.append(row | shares(steps))
    return made


def lhotse_sampler(inputs: dict[str, Path]) -> list[Measured]:
    """What each process of a training with lhotse does in each epoch."""
    cuts = CutSet.from_files([inputs[f"features/{part}"] / CUTS for part in PARTS if part != DEV])
    clock = time.perf_counter()
    sampler = DynamicBucketingSampler(
        cuts,
        max_duration=BATCH_SECONDS,
        shuffle=True,
        num_buckets=BUCKETS,
        buffer_size=BUFFER,
        world_size=PROCESSES,
        rank=0,
    )
    iter(sampler)
    # All that it plans, of which it hands each process every eighth.
    seconds = [np.array([cut.duration for cut in batch]) for batch in sampler.cuts_iter]
    row = measured(
        "lhotse: DynamicBucketingSampler, an epoch",
        clock,
        utterances=sum(len(batch) for batch in seconds),
    )
    whole = iter(seconds)
    steps = list(iter(lambda: list(islice(whole, PROCESSES)), []))
    return [row | shares(steps)]


def measured(step: str, clock: float, utterances: int) -> Measured:
    """A row: wall seconds since `clock`, and the most memory this process has held so far."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return {
        "step": step,
        "utterances": utterances,
        "seconds": time.perf_counter() - clock,
        "peak_memory_mb": int(found[1]) // 1024 if found else None,
        "batches": None,
        "padding_percent": None,
        "padding_and_waiting_percent": None,
    }


def shares(steps: list[list[NDArray[np.float64]]]) -> Measured:
    """Padding in what is computed, and what of all processes' time is spent on it or on waiting.

    `steps` holds the seconds of each utterance of each process's batch, step by step; a step takes
    as long as its largest batch, padding included.
    """
    audio = sum(batch.sum() for step in steps for batch in step)
    costs = [[len(batch) * batch.max(initial=0.0) for batch in step] for step in steps]
    computed = sum(map(sum, costs))
    lasting = PROCESSES * sum(map(max, costs))
    return {
        "batches": len(steps),
        "padding_percent": float(100 * (1 - audio / computed)),
        "padding_and_waiting_percent": float(100 * (1 - audio / lasting)),
    }


# --- the corpus ---------------------------------------------------------------------------------


def write_corpus(folder: Path) -> dict[str, Path]:
    """Manifests of all parts and a tokenizer, always the same; there are no features to read."""
    random = np.random.default_rng(960)
    text = random_text(random)
    inputs = {"tokenizer": folder / "tokenizer"}
    inputs["tokenizer"].mkdir()
    CharTokenizer().save(inputs["tokenizer"])
    speakers = 0
    for part, size in PARTS.items():
        directory = inputs[f"features/{part}"] = folder / part
        directory.mkdir()
        lines = part_lines(size, speakers, text, random)
        with gzip.open(directory / CUTS, "wt", compresslevel=1) as manifest:
            manifest.writelines(lines)
        speakers += size.speakers
    return inputs


def random_text(random: np.random.Generator) -> str:
    """Words of letters, to take transcripts from."""
    letters = list("AABCDEEEEFGHHIIJKLMNNOOPQRRSSTTTUVWXYZ'")
    words = ["".join(random.choice(letters, length)) for length in random.integers(1, 9, 5000)]
    return " ".join(random.choice(words, 100_000))


def random_seconds(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Lengths like LibriSpeech's: most are cut at about 15 s, a few are longer, mean 12.4 s."""
    kinds = random.random(count)
    seconds = np.where(
        kinds < 0.66, random.normal(14.9, 1.0, count), random.uniform(1.3, 14.0, count)
    )
    seconds = np.where(kinds > 0.996, random.uniform(17.0, 35.0, count), seconds)
    return np.asarray((seconds.clip(1.3, 35.0) * SAMPLE_RATE).round() / SAMPLE_RATE)


def part_lines(
    size: Size, first_speaker: int, text: str, random: np.random.Generator
) -> Iterator[str]:
    """Lines of a manifest, speaker by speaker."""
    lengths = random_seconds(size.utterances, random).tolist()
    starts = random.integers(0, len(text) - 1000, size.utterances).tolist()
    speakers = np.sort(random.integers(0, size.speakers, size.utterances)) + first_speaker
    offset = 0
    for number, (seconds, start, speaker) in enumerate(
        zip(lengths, starts, speakers.tolist(), strict=True)
    ):
        said = text[start : start + round(seconds * CHARACTERS_PER_SECOND)].strip()
        frames = round(seconds * 100)
        stored = [57 * min(CHUNK_FRAMES, frames - done) for done in range(0, frames, CHUNK_FRAMES)]
        key = ",".join(map(str, [offset, *stored]))
        offset += sum(stored)
        cut = cut_record(f"{speaker}-{number}", str(speaker), seconds, said, frames, key)
        yield json.dumps(cut) + "\n"


def cut_record(
    name: str, speaker: str, seconds: float, text: str, frames: int, key: str
) -> dict[str, Any]:
    """lhotse's record of an utterance as stage `features` writes it."""
    span = {"start": 0, "duration": seconds}
    return {
        "id": name,
        **span,
        "channel": 0,
        "supervisions": [
            {"id": name, "recording_id": name, **span, "text": text, "speaker": speaker}
        ],
        "features": {
            "type": "kaldi-fbank",
            "num_frames": frames,
            "num_features": 80,
            "frame_shift": 0.01,
            "sampling_rate": SAMPLE_RATE,
            **span,
            "storage_type": "lilcom_chunky",
            "storage_path": "feats.lca",
            "storage_key": key,
            "recording_id": name,
            "channels": 0,
        },
        "recording": {
            "id": name,
            "sources": [{"type": "file", "channels": [0], "source": f"{name}.flac"}],
            "sampling_rate": SAMPLE_RATE,
            "num_samples": round(seconds * SAMPLE_RATE),
            "duration": seconds,
        },
        "custom": {"digest": "0123456789abcdef"},
        "type": "MonoCut",
    }
