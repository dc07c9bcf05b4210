"""Computes features in parallel, a shard of utterances at a time, and packs them into one archive.

A shard is the unit of work and of resuming: what it holds is decided by the order of utterances
alone, never by the number of processes, so a part has the same bytes however it was made.
"""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import io
import json
import multiprocessing
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse.features.io import LilcomChunkyWriter
from numpy.typing import NDArray
from torchaudio.functional import resample

from lightasr import schema
from lightasr.data.audio import Samples, Speech, read_segment
from lightasr.data.cuts import CUTS, FEATURES, named
from lightasr.data.librispeech import Packed, Rejected
from lightasr.data.manifests import Entry
from lightasr.data.spectra import compute_features
from lightasr.errors import LightasrError, RetryError
from lightasr.files import write_atomically

SHARD_BYTES = 8 << 20  # of encoded audio: what waits in memory is a few shards
SHARD_UTTERANCES = 200
PR_SET_PDEATHSIG = 1

Spoken = Packed | Entry


@dataclass
class Tally:
    """What has been counted over utterances."""

    utterances: int = 0
    seconds: float = 0.0
    """Of audio, copies at other speeds included."""
    rejected: Rejected = field(default_factory=list)
    sample_rates: Counter[str] = field(default_factory=Counter)
    channels: Counter[str] = field(default_factory=Counter)
    voices: dict[str, Voice] = field(default_factory=dict)

    def add_voice(self, name: str, voice: Voice) -> None:
        if name in self.voices:
            self.voices[name].add(voice)
        else:
            self.voices[name] = voice

    def add(self, other: Tally) -> None:
        self.utterances += other.utterances
        self.seconds += other.seconds
        self.rejected += other.rejected
        self.sample_rates += other.sample_rates
        self.channels += other.channels
        for name, voice in other.voices.items():
            self.add_voice(name, voice)


@dataclass
class Shard:
    """The record of some consecutive utterances whose features are stored."""

    stored: int
    """Bytes of features."""
    tally: Tally
    cuts: list[dict[str, Any]]


@dataclass(frozen=True)
class Made:
    """A finished shard; its record stays on disk: those of a large part would fill the memory."""

    path: Path
    utterances: int
    seconds: float


@dataclass
class Voice:
    """Sums over all frames of a speaker at one speed."""

    frames: int
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, frames_tf: NDArray[np.float32]) -> Voice:
        squares = np.einsum("tf,tf->f", frames_tf, frames_tf)
        return cls(len(frames_tf), frames_tf.sum(0, dtype=np.float64), squares.astype(np.float64))

    @classmethod
    def read(cls, tree: dict[str, Any]) -> Voice:
        return cls(tree["frames"], np.asarray(tree["sums"]), np.asarray(tree["squares"]))

    def add(self, other: Voice) -> None:
        self.frames += other.frames
        self.sums = self.sums + other.sums
        self.squares = self.squares + other.squares

    def moments(self) -> dict[str, list[float]]:
        """Mean and standard deviation."""
        mean = self.sums / self.frames
        variance = self.squares / self.frames - mean**2
        return {"mean": _short(mean), "std": _short(np.sqrt(variance.clip(min=1e-6)))}


def _short(values: NDArray[np.float64]) -> list[float]:
    """Six digits: more would be about the rounding of stored features."""
    return [float(f"{value:.6g}") for value in values]


# --- making shards ------------------------------------------------------------------------------


def grouped(spoken: Iterable[Spoken]) -> Iterator[list[Spoken]]:
    """Consecutive utterances, as many as make a shard."""
    group: list[Spoken] = []
    held = 0
    for one in spoken:
        group.append(one)
        held += len(one.audio) if isinstance(one, Packed) else 0
        if held >= SHARD_BYTES or len(group) >= SHARD_UTTERANCES:
            yield group
            group, held = [], 0
    if group:
        yield group


def make_shards(
    spoken: Iterable[Spoken], config: schema.FeaturesSlice, folder: Path, processes: int
) -> Iterator[Made]:
    """Every shard, as it is finished; those that an earlier attempt made are not made again."""
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("fork")  # torch and lhotse are in memory once
    pending: set[Future[Made]] = set()
    with ProcessPoolExecutor(processes, context, initializer=_start_worker) as pool:
        try:
            for number, group in enumerate(grouped(spoken)):
                path = folder / f"{number:06d}-{_name(group)}"
                if shard := read_shard(path):
                    yield Made(path, shard.tally.utterances, shard.tally.seconds)
                    continue
                pending.add(pool.submit(make_shard, path, group, config))
                if len(pending) > processes:  # one waits for all that work, and no more
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            for future in pending:
                yield future.result()
        except BrokenProcessPool:
            raise RetryError(
                f"features {config.part}: a process was killed, perhaps for want of memory; run "
                "again to go on: finished shards are kept"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """A killed job leaves no process behind that still writes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    torch.set_num_threads(1)


def _name(group: list[Spoken]) -> str:
    """Eight hex digits for the utterances of a shard: another manifest makes other shards."""
    return hashlib.sha256("\n".join(one.id for one in group).encode()).hexdigest()[:8]


def read_shard(path: Path) -> Shard | None:
    """A finished shard; None where it is not there in full."""
    record, stored = path.with_suffix(".json"), path.with_suffix(".lca")
    if not record.exists() or not stored.exists():
        return None
    tree = json.loads(record.read_text(encoding="utf-8"))
    if stored.stat().st_size != tree["stored"]:
        return None
    tally = tree["tally"]
    tally["rejected"] = [(name, reason) for name, reason in tally["rejected"]]
    tally["voices"] = {name: Voice.read(voice) for name, voice in tally["voices"].items()}
    for counted in ("sample_rates", "channels"):
        tally[counted] = Counter(tally[counted])
    return Shard(tree["stored"], Tally(**tally), tree["cuts"])


def make_shard(path: Path, group: list[Spoken], config: schema.FeaturesSlice) -> Made:
    """Features of some utterances at every speed, and the record that says that they are stored."""
    tally, cuts = Tally(), []
    with LilcomChunkyWriter(str(path.with_suffix(".lca"))) as storage:
        for spoken in group:
            try:
                cuts += _store(spoken, config, storage, tally)
            except LightasrError as error:
                tally.rejected.append((spoken.id, str(error)))
        shard = Shard(storage.curr_offset, tally, cuts)
    write_atomically(path.with_suffix(".json"), json.dumps(shard, default=_plain))
    return Made(path, tally.utterances, tally.seconds)


def _plain(value: Any) -> Any:
    """What JSON has for an array or a record."""
    return value.tolist() if isinstance(value, np.ndarray) else vars(value)


def _store(
    spoken: Spoken, config: schema.FeaturesSlice, storage: LilcomChunkyWriter, tally: Tally
) -> list[dict[str, Any]]:
    """All copies of one utterance, or none: they are computed before the first is stored."""
    speech = _read(spoken, config)
    copies = [(speed, at_speed(speech.samples, speed)) for speed in config.speeds]
    computed = [(speed, samples, compute_features(samples, config)) for speed, samples in copies]
    tally.utterances += 1
    tally.sample_rates[str(speech.source_rate)] += 1
    tally.channels[str(speech.channels)] += 1
    cuts = []
    for speed, samples, frames_tf in computed:
        frames = frames_tf.numpy()
        cut = _cut(spoken, speed, samples, speech.digest, frames, config, storage)
        tally.seconds += cut["duration"]
        tally.add_voice(named(spoken.speaker, speed), Voice.of(frames))
        cuts.append(cut)
    return cuts


def _read(spoken: Spoken, config: schema.FeaturesSlice) -> Speech:
    if isinstance(spoken, Packed):
        payload = io.BytesIO(spoken.audio)
        return read_segment(payload, config.sample_rate, name=spoken.id, longest=config.max_seconds)
    return read_segment(
        spoken.audio,
        config.sample_rate,
        spoken.start,
        spoken.seconds,
        spoken.channel,
        longest=config.max_seconds,
    )


def at_speed(samples: Samples, speed: float) -> Samples:
    """The samples played faster or slower, pitch and all."""
    if speed == 1:
        return samples
    # A ratio of small numbers: the resampling filter has a phase for each sample of a period.
    played: Samples = resample(torch.from_numpy(samples), round(1000 * speed), 1000).numpy()
    return played


def _cut(
    spoken: Spoken,
    speed: float,
    samples: Samples,
    digest: str,
    frames: NDArray[np.float32],
    config: schema.FeaturesSlice,
    storage: LilcomChunkyWriter,
) -> dict[str, Any]:
    """lhotse's record of an utterance, its features stored.

    As lhotse writes it, without its objects: making them takes a tenth of all the time.
    """
    name = named(spoken.id, speed)
    duration = len(samples) / config.sample_rate
    whole = {"start": 0, "duration": duration}
    custom: dict[str, Any] = {"digest": digest}
    if speed != 1:
        custom["speed"] = speed
    supervision = {
        "id": name,
        "recording_id": name,
        **whole,
        "channel": 0,
        "text": spoken.text,
        "speaker": spoken.speaker,
    }
    features = {
        "type": f"kaldi-{config.kind}",
        "num_frames": len(frames),
        "num_features": frames.shape[1],
        "frame_shift": config.shift_ms / 1000,
        "sampling_rate": config.sample_rate,
        **whole,
        "storage_type": storage.name,
        "storage_path": FEATURES,  # beside the manifest, wherever that is moved
        "storage_key": storage.write(name, frames),
        "recording_id": name,
        "channels": 0,
    }
    recording = {
        "id": name,
        "sources": [{"type": "file", "channels": [0], "source": f"{name}.flac"}],
        "sampling_rate": config.sample_rate,
        "num_samples": len(samples),
        "duration": duration,
        "channel_ids": [0],
    }
    return {
        "id": name,
        **whole,
        "channel": 0,
        "supervisions": [supervision],
        "features": features,
        "recording": recording,
        "custom": custom,
        "type": "MonoCut",
    }


# --- packing them -------------------------------------------------------------------------------


def pack(made: list[Made], out: Path) -> Tally:
    """One feature archive and one manifest of all shards, in the order of utterances."""
    total = Tally()
    with (
        (out / FEATURES).open("wb") as features,
        (out / CUTS).open("wb") as packed,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=packed, mtime=0) as manifest,
    ):
        for path in sorted(one.path for one in made):
            shard = read_shard(path)
            if shard is None:
                raise RetryError(f"{path}: was finished and is gone; run again to make it again")
            base = features.tell()
            with path.with_suffix(".lca").open("rb") as stored:
                shutil.copyfileobj(stored, features)
            for cut in shard.cuts:
                described = cut["features"]
                described["storage_key"] = moved(described["storage_key"], base)
                manifest.write(json.dumps(cut, ensure_ascii=False).encode() + b"\n")
            total.add(shard.tally)
    return total


def moved(key: str, offset: int) -> str:
    """lhotse's key of chunks that now lie `offset` bytes further on: first offset, then lengths."""
    first, _, lengths = key.partition(",")
    return f"{int(first) + offset},{lengths}"
