"""Packing features: our stream from the archive beside lhotse over the unpacked recordings."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from statistics import median

import torch
from lhotse import CutSet, Fbank, FbankConfig, LilcomChunkyWriter, Recording

from lightasr import schema
from lightasr.cost.timing import Measured
from lightasr.data import features
from lightasr.errors import LightasrError
from lightasr.jobs import Job
from lightasr.plan import Plan
from lightasr.progress import track
from lightasr.threads import usable_cores

TITLE = "Features of a part: from the archive's stream, and by lhotse from unpacked FLACs"
REPEATS = 3
COPIES = 4  # of a corpus of an hour or so: starting processes must not count
SAMPLE_EVERY_SECONDS = 0.05
PSS = re.compile(r"^Pss:\s+(\d+)", re.M)

Work = Callable[[Path, int, Path], None]
"""Packs the features of an archive's folder, with some processes, into a folder."""


def rows(plan: Plan) -> list[Measured]:
    """Throughput at each number of processes, and memory also for a quarter of the part."""
    job = _archive(plan)
    with tempfile.TemporaryDirectory() as scratch:
        small, large = Path(scratch) / "small", Path(scratch) / "large"
        hours = repeated(plan.project / job.dir, small, 1) / 3600
        repeated(plan.project / job.dir, large, COPIES)
        unpack(large)
        seconds: dict[tuple[str, int], list[float]] = {}
        memory: dict[tuple[str, int], float] = {}
        counts = sorted({1, max(1, usable_cores() // 2), usable_cores()})
        runs = [(count, name) for count in counts for name in WORK]
        with track("bench features", total=REPEATS * len(runs) + 1) as bar:
            for _ in range(REPEATS):  # turn about, so that a busy moment does not hit one alone
                for count, name in runs:
                    took, peak = measure(WORK[name], large, count, Path(scratch))
                    seconds.setdefault((name, count), []).append(took)
                    memory[name, count] = max(peak, memory.get((name, count), 0))
                    bar.update(1)
            _, small_peak = measure(from_archive, small, counts[-1], Path(scratch))
            bar.update(1)
    peer = {count: median(seconds[LHOTSE, count]) for count in counts}
    single = {name: median(seconds[name, counts[0]]) for name in WORK}
    found: list[Measured] = [
        {
            "way": name,
            "hours": round(COPIES * hours, 2),
            "processes": count,
            "speed_of_lhotse": round(peer[count] / median(seconds[name, count]), 2),
            "speed_of_one_process": round(single[name] / median(seconds[name, count]), 2),
            "peak_memory_mb": round(memory[name, count]),
        }
        for count, name in runs
    ]
    quarter: Measured = {
        "way": LIGHTASR,
        "hours": round(hours, 2),
        "processes": counts[-1],
        "speed_of_lhotse": None,
        "speed_of_one_process": None,
        "peak_memory_mb": round(small_peak),
    }
    return [*found, quarter]


def _archive(plan: Plan) -> Job:
    """The first training archive there is."""
    for experiment in plan.experiments:
        for part in experiment.config.corpus.train:
            for run in experiment.runs:
                job = run.train.inputs[f"features/{part}"].inputs.get("archive")
                if job is not None and job.done(plan.project):
                    return job
    raise LightasrError(
        "no training archive is there yet: run `snakemake --profile profiles/local -- archive`"
    )


def repeated(source: Path, folder: Path, copies: int) -> float:
    """An archive with every utterance of another, some times over; seconds of audio in it."""
    folder.mkdir()
    (archive,) = source.glob("*.tar.gz")
    frames = 0
    with tarfile.open(folder / archive.name, "w:gz", compresslevel=1) as out:
        for copy in range(copies):
            with tarfile.open(archive, "r|gz") as tar:
                for member in tar:
                    if not member.isfile() or not member.name.endswith((".flac", ".trans.txt")):
                        continue
                    stream = tar.extractfile(member)
                    assert stream is not None  # it is a file
                    payload = stream.read()
                    path = Path(member.name)
                    if path.suffix == ".flac":
                        frames += _frames(payload)
                    else:
                        lines = payload.decode().splitlines()
                        payload = "".join(f"{copy}{line}\n" for line in lines).encode()
                    member.name = str(path.with_name(f"{copy}{path.name}"))
                    member.size = len(payload)
                    out.addfile(member, io.BytesIO(payload))
    return frames / 16000


def _frames(flac: bytes) -> int:
    """Samples of a FLAC file, by its header."""
    return int.from_bytes(flac[21:26], "big") & 0xFFFFFFFFF


def unpack(folder: Path) -> None:
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    recordings = sorted((folder / "unpacked").rglob("*.flac"))
    cuts = CutSet.from_cuts(Recording.from_file(path).to_cut() for path in recordings)
    cuts.to_file(folder / "recordings.jsonl.gz")


def from_archive(folder: Path, processes: int, scratch: Path) -> None:
    """What the stage does."""
    os.environ["OMP_NUM_THREADS"] = str(processes)
    out, work = scratch / "out", scratch / "work"
    out.mkdir()
    work.mkdir()
    (archive,) = folder.glob("*.tar.gz")
    config = schema.FeaturesSlice(part=archive.name.removesuffix(".tar.gz"), max_rejected=0.0)
    features.run(config, {"archive": folder}, out, work)


def by_lhotse(folder: Path, processes: int, scratch: Path) -> None:
    """lhotse's own batch extraction; listing the recordings is not timed."""
    os.environ["OMP_NUM_THREADS"] = "1"  # else its processes fight for the cores
    cuts = CutSet.from_file(folder / "recordings.jsonl.gz")
    extractor = Fbank(FbankConfig(num_filters=schema.Features().mels))
    cuts.compute_and_store_features(
        extractor, scratch / "lhotse", num_jobs=processes, storage_type=LilcomChunkyWriter
    ).to_file(scratch / "cuts.jsonl.gz")


LIGHTASR, LHOTSE = "lightasr, archive", "lhotse, unpacked"
WORK: dict[str, Work] = {LIGHTASR: from_archive, LHOTSE: by_lhotse}


def measure(work: Work, folder: Path, processes: int, scratch: Path) -> tuple[float, float]:
    """Wall seconds and peak memory (MB, shared pages counted once) in a process of its own."""
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        context = multiprocessing.get_context("spawn")
        times = context.Queue()
        child = context.Process(target=_timed, args=(work, folder, processes, Path(out), times))
        child.start()
        peak = 0.0
        while child.is_alive():
            peak = max(peak, _memory(child.pid))
            child.join(SAMPLE_EVERY_SECONDS)
        if child.exitcode:
            raise LightasrError(f"{work.__name__} failed on {folder}, see above")
        seconds: float = times.get()
        return seconds, peak


def _timed(
    work: Work, folder: Path, processes: int, out: Path, times: multiprocessing.Queue[float]
) -> None:
    torch.set_num_threads(1)
    started = time.monotonic()
    with redirect_stderr(io.StringIO()):  # its progress would run through ours
        work(folder, processes, out)
    times.put(time.monotonic() - started)
    shutil.rmtree(out, ignore_errors=True)


def _memory(pid: int | None) -> float:
    """Memory (MB) of a process and its children; what they share is counted once."""
    process = Path(f"/proc/{pid}")
    try:
        rollup = (process / "smaps_rollup").read_text()
        children = (process / "task" / str(pid) / "children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0.0
    found = PSS.search(rollup)
    own = int(found[1]) / 1000 if found else 0.0
    return own + sum(_memory(int(child)) for child in children)
