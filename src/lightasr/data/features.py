"""Stage `features`: reads a part's archive as a stream and packs its features, never unpacking."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi
from lhotse import CutSet, Features, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.features.io import LilcomChunkyWriter
from torch import Tensor
from torchaudio.functional import resample

from lightasr import schema
from lightasr.data.audio import read_audio
from lightasr.errors import LightasrError
from lightasr.progress import track


@dataclass(frozen=True)
class Utterance:
    """One transcribed recording of an archive."""

    id: str
    speaker: str
    text: str
    audio: np.ndarray
    speed: float = 1.0


def fbank(audio: np.ndarray, config: schema.Features) -> Tensor:
    """Log mel energies (T, F) of mono samples, Kaldi's definition, without dither."""
    return kaldi.fbank(
        torch.from_numpy(audio)[None] * 2**15,
        num_mel_bins=config.mels,
        sample_frequency=config.sample_rate,
        frame_length=config.window_ms,
        frame_shift=config.shift_ms,
        dither=0.0,
        snip_edges=False,
    )


def run(
    config: schema.FeaturesSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """`cuts.jsonl.gz`, `feats.lca` and `rejected.tsv` of one part."""
    torch.set_num_threads(1)
    archive = inputs["archive"] / f"{config.part}.tar.gz"
    rejected: list[tuple[str, str]] = []
    seconds, count = 0.0, 0
    with (
        track(f"features {config.part}") as bar,
        LilcomChunkyWriter(str(out / "feats")) as storage,
        CutSet.open_writer(str(out / "cuts.jsonl.gz")) as manifest,
    ):
        for utterance in utterances(archive, config.sample_rate, rejected):
            for speed in config.speeds:
                spoken = at_speed(utterance, speed, config.sample_rate)
                cut = _cut(spoken, fbank(spoken.audio, config), config, storage)
                manifest.write(cut)
                seconds += cut.duration
            count += 1
            bar.update(1, hours=seconds / 3600)
    lines = ["id\treason", *("\t".join(pair) for pair in sorted(rejected))]
    (out / "rejected.tsv").write_text("\n".join(lines) + "\n")
    if not count or len(rejected) > config.max_rejected * (count + len(rejected)):
        told = "; ".join(f"{name}: {reason}" for name, reason in sorted(rejected)[:3])
        raise LightasrError(
            f"{archive}: {len(rejected)} of {count + len(rejected)} utterances are bad "
            f"(features.max_rejected allows {config.max_rejected:.0%}): {told or 'it is empty'}"
        )
    return {"utterances": count, "audio_seconds": seconds, "rejected": len(rejected)}


def at_speed(utterance: Utterance, speed: float, sample_rate: int) -> Utterance:
    """The utterance played faster or slower; transcripts are counted at speed 1 alone."""
    if speed == 1:
        return utterance
    samples = torch.from_numpy(utterance.audio)
    audio = resample(samples, round(sample_rate * speed), sample_rate).numpy()
    return Utterance(f"{utterance.id}-x{speed:g}", utterance.speaker, utterance.text, audio, speed)


def _cut(
    utterance: Utterance, feats: Tensor, config: schema.FeaturesSlice, storage: LilcomChunkyWriter
) -> MonoCut:
    """lhotse's record of an utterance, its features stored."""
    duration = len(utterance.audio) / config.sample_rate
    shift = config.shift_ms / 1000
    key = storage.write(utterance.id, feats.numpy())
    return MonoCut(
        id=utterance.id,
        start=0,
        duration=duration,
        channel=0,
        supervisions=[
            SupervisionSegment(
                id=utterance.id,
                recording_id=utterance.id,
                start=0,
                duration=duration,
                text=utterance.text,
                speaker=utterance.speaker,
            )
        ],
        features=Features(
            type=f"kaldi-{config.kind}",
            num_frames=len(feats),
            num_features=feats.shape[1],
            frame_shift=shift,
            sampling_rate=config.sample_rate,
            start=0,
            duration=duration,
            storage_type=storage.name,
            storage_path="feats.lca",  # beside the manifest, wherever that is moved
            storage_key=key,
            recording_id=utterance.id,
            channels=0,
        ),
        custom={"speed": utterance.speed} if utterance.speed != 1 else None,
        recording=Recording(
            id=utterance.id,
            sources=[AudioSource(type="file", channels=[0], source=f"{utterance.id}.flac")],
            sampling_rate=config.sample_rate,
            num_samples=len(utterance.audio),
            duration=duration,
        ),
    )


def utterances(
    archive: Path, sample_rate: int, rejected: list[tuple[str, str]]
) -> Iterator[Utterance]:
    """Transcribed recordings of a LibriSpeech archive, chapter by chapter, in the archive's order.

    A chapter's transcripts may come before or after its audio; what waits for its other half is
    one chapter, so memory does not grow with the part.
    """
    texts: dict[str, str] = {}
    waiting: dict[str, bytes] = {}
    seen: set[str] = set()
    for name, payload in _members(archive):
        if name.suffix == ".txt":
            texts |= _transcripts(name, payload)
        else:
            if name.stem in seen:
                rejected.append((name.stem, "its audio is there twice"))
                continue
            seen.add(name.stem)
            waiting[name.stem] = payload
        for utterance_id in [utterance_id for utterance_id in waiting if utterance_id in texts]:
            text = texts.pop(utterance_id)
            yield from _decoded(
                utterance_id, text, waiting.pop(utterance_id), sample_rate, rejected
            )
    rejected += [(utterance_id, "no transcript") for utterance_id in waiting]
    rejected += [(utterance_id, "no audio") for utterance_id in texts if utterance_id not in seen]


def _decoded(
    utterance_id: str,
    text: str,
    payload: bytes,
    sample_rate: int,
    rejected: list[tuple[str, str]],
) -> Iterator[Utterance]:
    if not text:
        rejected.append((utterance_id, "empty transcript"))
        return
    try:
        audio = read_audio(io.BytesIO(payload), sample_rate, name=utterance_id)
    except LightasrError as error:
        rejected.append((utterance_id, str(error)))
        return
    yield Utterance(utterance_id, utterance_id.split("-")[0], text, audio)


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Audio and transcripts of a tar, read by their own bytes; nothing is written to disk."""
    try:
        with tarfile.open(archive, mode="r|*") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if member.isfile() and (name.suffix == ".flac" or name.name.endswith(".trans.txt")):
                    stream = tar.extractfile(member)
                    assert stream is not None  # it is a regular file
                    yield name, stream.read()
    except FileNotFoundError:
        raise LightasrError(f"{archive}: no such file") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise LightasrError(f"{archive}: damaged archive: {error}") from None


def _transcripts(name: PurePosixPath, payload: bytes) -> dict[str, str]:
    """`ID TEXT` lines."""
    try:
        lines = payload.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise LightasrError(f"{name}: not UTF-8 text: {error.reason}") from None
    pairs = (line.strip().partition(" ") for line in lines if line.strip())
    return {utterance_id: text.strip() for utterance_id, _, text in pairs}
