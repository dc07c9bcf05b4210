"""Builds the corpus as LibriSpeech archives, the same bytes at every build."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from lightasr.data.sample.config import SampleConfig
from lightasr.data.sample.metadata import metadata_files
from lightasr.data.sample.plan import PARTS, Speaker, lm_sentences, plan_part
from lightasr.data.sample.recording import record
from lightasr.progress import track

LM_TEXT = "librispeech-lm-norm.txt.gz"

_ROOT = "LibriSpeech"


def build_part(part: str, config: SampleConfig, out: Path, processes: int = 1) -> None:
    """Write `out/<part>.tar.gz`."""
    speakers = plan_part(part, config)
    corpus = {name: plan_part(name, config) for name in PARTS}
    out.mkdir(parents=True, exist_ok=True)
    with (
        _reproducible_gzip(out / f"{part}.tar.gz") as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        track(f"sample {part}", total=len(speakers)) as bar,
    ):
        for name, text in metadata_files(corpus).items():
            _add(archive, f"{_ROOT}/{name}", text.encode())
        recordings = _record_all(part, speakers, config.seed, processes)
        for speaker, files in zip(speakers, recordings, strict=True):
            _add_speaker(archive, f"{_ROOT}/{part}", speaker, files)
            bar.update(1)


def build_lm_text(config: SampleConfig, out: Path) -> None:
    """Write `out/librispeech-lm-norm.txt.gz`, one sentence a line."""
    out.mkdir(parents=True, exist_ok=True)
    with _reproducible_gzip(out / LM_TEXT) as compressed:
        compressed.write("".join(f"{line}\n" for line in lm_sentences(config)).encode())


def _record_all(
    part: str, speakers: list[Speaker], seed: int, processes: int
) -> Iterator[list[bytes]]:
    """Every speaker's files, in order, `processes` speakers at a time."""
    with _one_thread_a_process(), ThreadPoolExecutor(processes) as pool:
        yield from pool.map(lambda speaker: _record_apart(part, speaker, seed), speakers)


@contextmanager
def _one_thread_a_process() -> Iterator[None]:
    """Keep the processes started meanwhile from fighting over the cores with their BLAS threads."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _record_apart(part: str, speaker: Speaker, seed: int) -> list[bytes]:
    # A process for every speaker: the synthesiser would carry state from one to the next.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(record, part, speaker, seed).result()


def _add_speaker(
    archive: tarfile.TarFile, folder: str, speaker: Speaker, files: Iterable[bytes]
) -> None:
    """Add the speaker's chapters, each with its audio and then its transcripts."""
    remaining = iter(files)
    for call in speaker.calls:
        chapter = f"{folder}/{speaker.number}/{call.chapter}"
        lines = []
        for utterance, sentence in call.utterances():
            _add(archive, f"{chapter}/{utterance}.flac", next(remaining))
            lines.append(f"{utterance} {sentence}\n")
        _add(
            archive, f"{chapter}/{speaker.number}-{call.chapter}.trans.txt", "".join(lines).encode()
        )


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    # A fresh TarInfo has time, owner and group zero.
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@contextmanager
def _reproducible_gzip(path: Path) -> Iterator[gzip.GzipFile]:
    """A gzip file without name or time inside; at level 1, for FLAC shrinks no further."""
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as compressed,
    ):
        yield compressed
