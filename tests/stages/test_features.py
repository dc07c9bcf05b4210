"""Stage `features`: every utterance of a part is packed, or listed with what is wrong with it."""

from __future__ import annotations

import io
import json
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.compliance.kaldi as kaldi
from lhotse import CutSet, MonoCut

from lightasr import schema
from lightasr.data import features, shards
from lightasr.errors import LightasrError
from lightasr.text.transcripts import read_transcripts
from tones import SAMPLE_RATE, chapter, flac, tone, write_archive

PART = "dev-clean"
TEXTS = ["AB CD", "EE", "ACE BAD"]
IDS = ["7-1-0000", "7-1-0001", "7-1-0002"]

Files = dict[str, bytes]


def settings(**keys: object) -> schema.FeaturesSlice:
    return schema.FeaturesSlice(part=PART, mels=20, **{"max_rejected": 0.9, **keys})  # type: ignore[arg-type]


def compute(tmp_path: Path, files: Files, **keys: object) -> tuple[Path, dict[str, str]]:
    """Features of an archive of these files, and what `rejected.tsv` says of whom."""
    archive = write_archive(tmp_path / "archive" / f"{PART}.tar.gz", files)
    return compute_from(archive, tmp_path / "out", **keys)


def compute_from(archive: Path, out: Path, **keys: object) -> tuple[Path, dict[str, str]]:
    work = out.parent / "work"
    for folder in (out, work):
        folder.mkdir(exist_ok=True)
    features.run(settings(**keys), {"archive": archive.parent}, out, work)
    lines = (out / "rejected.tsv").read_text().splitlines()[1:]
    return out, dict(line.split("\t") for line in lines)


def cuts(out: Path) -> list[MonoCut]:
    """What lhotse reads, features at hand."""
    return list(CutSet.from_file(out / "cuts.jsonl.gz").with_features_path_prefix(out))


def ids(out: Path) -> list[str]:
    return [cut.id for cut in cuts(out)]


def audio_name(files: Files, number: int) -> str:
    return next(name for name in files if name.endswith(f"{number:04d}.flac"))


def transcripts_name(files: Files) -> str:
    return next(name for name in files if name.endswith(".txt"))


# --- what is packed -----------------------------------------------------------------------------


def test_packed_features_are_kaldis(tmp_path: Path) -> None:
    out, rejected = compute(tmp_path, chapter(PART, 7, TEXTS))
    found = cuts(out)
    assert not rejected
    assert [cut.id for cut in found] == IDS
    assert [cut.supervisions[0].text for cut in found] == TEXTS
    assert {cut.supervisions[0].speaker for cut in found} == {"7"}
    rng = np.random.default_rng([0, 7])
    samples = torch.tensor(np.round(tone(TEXTS[0], rng) * 2**15))[None].float()
    expected = kaldi.fbank(samples, num_mel_bins=20, dither=0.0, snip_edges=False)
    packed = torch.from_numpy(found[0].load_features())
    assert packed.shape == expected.shape
    torch.testing.assert_close(packed, expected, atol=0.1, rtol=0)  # lilcom rounds


def test_the_manifest_is_lhotses_to_the_last_field(tmp_path: Path) -> None:
    out, _ = compute(tmp_path, chapter(PART, 7, TEXTS), speeds=(1.0, 0.9))
    for cut in CutSet.from_file(out / "cuts.jsonl.gz"):
        assert CutSet.from_dicts([cut.to_dict()])[0] == cut
        assert cut.num_frames == len(cut.with_features_path_prefix(out).load_features())


@pytest.mark.parametrize(("kind", "dim"), [("spectrogram", 201), ("quaternion", 80)])
def test_other_kinds_of_features_are_packed_alike(kind: str, dim: int, tmp_path: Path) -> None:
    out, _ = compute(tmp_path, chapter(PART, 7, TEXTS), kind=kind)
    assert [cut.load_features().shape[1] for cut in cuts(out)] == [dim] * 3


def test_speakers_statistics_are_over_all_their_frames(tmp_path: Path) -> None:
    files = {**chapter(PART, 7, TEXTS), **chapter(PART, 8, TEXTS[:1])}
    out, _ = compute(tmp_path, files, speeds=(1.0, 1.1))
    moments = json.loads((out / "speakers.json").read_text())
    assert list(moments) == ["7", "7-x1.1", "8", "8-x1.1"]
    frames = np.concatenate([cut.load_features() for cut in cuts(out) if cut.id in IDS])
    np.testing.assert_allclose(moments["7"]["mean"], frames.mean(0), atol=0.02)  # lilcom rounds
    np.testing.assert_allclose(moments["7"]["std"], frames.std(0), atol=0.02)


def test_speeds_are_copies_with_ids_of_their_own_whose_text_counts_once(tmp_path: Path) -> None:
    out, _ = compute(tmp_path, chapter(PART, 7, TEXTS), speeds=(0.9, 1.0, 1.1))
    frames = {cut.id: cut.num_frames for cut in cuts(out)}
    assert len(frames) == 9
    for name in IDS:
        assert frames[f"{name}-x0.9"] == pytest.approx(frames[name] / 0.9, abs=1.5)
        assert frames[f"{name}-x1.1"] == pytest.approx(frames[name] / 1.1, abs=1.5)
    assert [text for _, text in read_transcripts(out)] == TEXTS


def test_equal_audio_is_told_by_its_digest(tmp_path: Path) -> None:
    files = chapter(PART, 7, TEXTS)
    files[audio_name(files, 2)] = files[audio_name(files, 0)]
    out, _ = compute(tmp_path, files)
    first, second, third = (cut.custom["digest"] for cut in cuts(out))
    assert first == third != second


def test_the_directory_can_be_moved(tmp_path: Path) -> None:
    out, _ = compute(tmp_path, chapter(PART, 7, TEXTS))
    moved = out.rename(tmp_path / "elsewhere")
    assert len([cut.load_features() for cut in cuts(moved)]) == 3


def test_transcripts_may_come_before_or_after_the_audio(tmp_path: Path) -> None:
    files = chapter(PART, 7, TEXTS)
    out, rejected = compute(tmp_path, dict(reversed(files.items())))
    assert sorted(ids(out)) == IDS
    assert not rejected


# --- parallel, resumed, bounded -----------------------------------------------------------------


def many(speakers: int = 3, utterances: int = 4) -> Files:
    files: Files = {}
    for speaker in range(speakers):
        files |= chapter(PART, speaker, ["AB"] * utterances)
    return files


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_UTTERANCES", 2)


def test_the_number_of_processes_does_not_change_a_byte(
    tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive(tmp_path / "archive" / f"{PART}.tar.gz", many())
    made = {}
    for processes in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", processes)
        (tmp_path / processes).mkdir()
        out, _ = compute_from(archive, tmp_path / processes / "out")
        made[processes] = {path.name: path.read_bytes() for path in out.iterdir()}
    assert made["1"] == made["3"]
    assert set(made["1"]) == {"cuts.jsonl.gz", "feats.lca", "speakers.json", "rejected.tsv"}


def test_a_killed_attempt_loses_no_finished_shard(tmp_path: Path, small_shards: None) -> None:
    archive = write_archive(tmp_path / "archive" / f"{PART}.tar.gz", many())
    whole, _ = compute_from(archive, tmp_path / "out")
    expected = {path.name: path.read_bytes() for path in whole.iterdir()}
    finished = sorted((tmp_path / "work" / "shards").glob("*.json"))
    assert len(finished) == 6
    before = {path: path.stat().st_mtime_ns for path in finished}
    lost, torn = finished[1], finished[4].with_suffix(".lca")
    lost.unlink()
    torn.write_bytes(torn.read_bytes()[:-1])
    out, _ = compute_from(archive, tmp_path / "out")
    made = {path for path in finished if path.stat().st_mtime_ns != before[path]}
    assert made == {lost, torn.with_suffix(".json")}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected


KILLED = """
import sys, time
from pathlib import Path
from lightasr import schema
from lightasr.data import features, shards
shards.SHARD_UTTERANCES = 1
make = shards.make_shard
def slow(*arguments):
    made = make(*arguments)
    time.sleep(0.4)
    return made
shards.make_shard = slow
config = schema.FeaturesSlice(part="dev-clean", mels=20)
features.run(config, {"archive": Path(sys.argv[1])}, Path(sys.argv[2]), Path(sys.argv[3]))
"""


def test_sigkill_leaves_no_process_behind_and_finished_shards_on_disk(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive" / f"{PART}.tar.gz", many())
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    work.mkdir()
    arguments = [str(archive.parent), str(out), str(work)]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments], start_new_session=True
    ) as run:
        deadline = time.monotonic() + 60
        while len(list((work / "shards").glob("*.json"))) < 2:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        run.wait()
    while session_lives(run.pid):
        assert time.monotonic() < deadline, "a worker outlived the job"
        time.sleep(0.05)
    assert not (out / "cuts.jsonl.gz").exists()
    assert 2 <= len(list((work / "shards").glob("*.json"))) < 12


def session_lives(session: int) -> bool:
    """Whether a process of a session still runs."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[3] == str(session) and fields[0] != "Z":
            return True
    return False


def test_a_disk_that_fills_is_told_and_can_be_gone_on_from(
    tmp_path: Path, small_shards: None
) -> None:
    archive = write_archive(tmp_path / "archive" / f"{PART}.tar.gz", many())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            compute_from(archive, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    out, rejected = compute_from(archive, tmp_path / "out")
    assert len(ids(out)) == 12
    assert not rejected


def test_memory_does_not_grow_with_the_part(tmp_path: Path) -> None:
    peaks = {}
    for utterances in (200, 4000):
        payload = flac(np.zeros(8000))
        files = {f"LibriSpeech/{PART}/7/1/7-1-{i:05d}.flac": payload for i in range(utterances)}
        lines = "".join(f"7-1-{i:05d} A\n" for i in range(utterances))
        files[f"LibriSpeech/{PART}/7/1/7-1.trans.txt"] = lines.encode()
        archive = write_archive(tmp_path / str(utterances) / f"{PART}.tar.gz", files)
        script = (
            "import resource\n"
            "from lightasr.data.librispeech import read_archive\n"
            "from lightasr.progress import track\n"
            "from pathlib import Path\n"
            "with track('x', quiet=True) as bar:\n"
            f"    count = sum(1 for _ in read_archive(Path({str(archive)!r}), [], bar))\n"
            "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        count, peak = map(int, done.stdout.split())
        assert count == utterances
        peaks[utterances] = peak
    # All audio of a chapter waits for its transcripts when they come last; nothing else is kept.
    assert peaks[4000] - peaks[200] < 4000 * (len(payload) + 2500) / 1024


# --- what is wrong with an archive --------------------------------------------------------------


def with_member(files: Files, tmp_path: Path, add: Callable[[tarfile.TarFile], None]) -> Path:
    """An archive with something else in it."""
    archive = tmp_path / "archive" / f"{PART}.tar.gz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tar:
        for name, payload in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))
        add(tar)
    return archive


def special(name: str, kind: bytes, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)

    return add


def regular(name: str) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        payload = flac(np.ones(SAMPLE_RATE) * 0.1)
        info = tarfile.TarInfo(name)
        info.size = len(payload)
        tar.addfile(info, io.BytesIO(payload))

    return add


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (regular("../../7-1-0001.flac"), "leads out of the archive"),
        (regular("/etc/7-1-0001.flac"), "leads out of the archive"),
        (special("x/7-1-0001.flac", tarfile.SYMTYPE, "/etc/passwd"), "a link to /etc/passwd"),
        (special("x/7-1-0001.flac", tarfile.LNKTYPE, "x/7-1-0000.flac"), "a link to x/7-1"),
        (special("x/7-1-0001.flac", tarfile.CHRTYPE), "a device or a directory"),
        (special("x/7-1-0001.flac", tarfile.FIFOTYPE), "a device or a directory"),
        (special("x/7-1-0001.flac", tarfile.DIRTYPE), "a device or a directory"),
    ],
    ids=["traversal", "absolute", "symlink", "hardlink", "device", "fifo", "directory"],
)
def test_members_that_are_no_plain_files_of_the_tree_are_listed_and_not_read(
    add: Callable[[tarfile.TarFile], None], reason: str, tmp_path: Path
) -> None:
    files = chapter(PART, 7, TEXTS)
    del files[audio_name(files, 1)]
    out, rejected = compute_from(with_member(files, tmp_path, add), tmp_path / "out")
    assert ids(out) == [IDS[0], IDS[2]]
    assert list(rejected) == [IDS[1]]
    assert reason in rejected[IDS[1]]


def test_audio_that_is_there_twice_is_listed(tmp_path: Path) -> None:
    files = chapter(PART, 7, TEXTS)
    name = audio_name(files, 0)
    out, rejected = compute(tmp_path, {**files, name.replace("/7/1/", "/7/2/"): files[name]})
    assert rejected == {IDS[0]: "its audio is there twice; the first is kept"}
    assert ids(out).count(IDS[0]) == 1


def test_a_truncated_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive" / f"{PART}.tar.gz", chapter(PART, 7, TEXTS))
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(LightasrError, match=rf"{PART}\.tar\.gz: damaged archive"):
        compute_from(archive, tmp_path / "out")


def test_a_file_that_is_no_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    archive = tmp_path / "archive" / f"{PART}.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(LightasrError, match=rf"{PART}\.tar\.gz: damaged archive"):
        compute_from(archive, tmp_path / "out")


def test_an_empty_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match="it is empty"):
        compute(tmp_path, {"LibriSpeech/README.TXT": b"nothing"})


def test_a_directory_without_its_archive_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    with pytest.raises(LightasrError, match=r"holds 0 archives"):
        compute_from(tmp_path / "archive" / "gone.tar.gz", tmp_path / "out")


# --- what is wrong with an utterance ------------------------------------------------------------


def wav(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    return stream.getvalue()


def with_count(payload: bytes, samples: int) -> bytes:
    """A FLAC file whose header tells another number of samples."""
    fields = int.from_bytes(payload[18:26], "big")
    return payload[:18] + (fields >> 36 << 36 | samples).to_bytes(8, "big") + payload[26:]


NAN = np.where(np.arange(SAMPLE_RATE) == 8000, np.nan, 0.1)
SECOND = flac(np.ones(SAMPLE_RATE) * 0.1)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not audio that can be decoded"),
        (b"no FLAC at all", "not audio that can be decoded"),
        (SECOND[:-900], "cut short|can be decoded"),
        (with_count(SECOND, SAMPLE_RATE + 1), "cut short|can be decoded"),
        (with_count(SECOND, SAMPLE_RATE - 1), "checksum"),
        (with_count(SECOND, 0), "does not tell its length"),
        (wav(np.zeros(0)), "no audio in it"),
        (flac(np.zeros(100)), "less than a frame"),
        (wav(NAN), "a sample at 0.50 s is not a finite number"),
        (flac(np.zeros(8000 * 2400), 8000), "longer than 120 s"),
    ],
    ids=[
        *[
            "empty",
            "rubbish",
            "truncated",
            "more samples told",
            "fewer samples told",
            "no length told",
        ],
        *["no samples", "less than a frame", "NaN", "40 minutes"],
    ],
)
def test_bad_audio_is_listed_and_the_rest_is_kept(
    payload: bytes, reason: str, tmp_path: Path
) -> None:
    files = chapter(PART, 7, TEXTS)
    files[audio_name(files, 1)] = payload
    out, rejected = compute(tmp_path, files)
    assert ids(out) == [IDS[0], IDS[2]]
    assert list(rejected) == [IDS[1]]
    assert any(part in rejected[IDS[1]] for part in reason.split("|"))


@pytest.mark.parametrize(
    ("lines", "id_", "reason"),
    [
        (b"7-1-0000 AB CD\n7-1-0002 ACE BAD\n", "7-1-0001", "no transcript"),
        (b"7-1-0000 AB CD\n7-1-0001\n7-1-0002 ACE BAD\n", "7-1-0001", "empty transcript"),
        (b"7-1-0000 AB\n7-1-0001 \xff\n7-1-0002 ACE\n", "7-1-0001", "not UTF-8 text"),
        (b"7-1-0000 A\n7-1-0001 B\n7-1-0002 C\n7-1-0009 D\n", "7-1-0009", "no audio"),
    ],
    ids=["missing", "empty", "not UTF-8", "without audio"],
)
def test_bad_transcripts_are_listed(lines: bytes, id_: str, reason: str, tmp_path: Path) -> None:
    files = chapter(PART, 7, TEXTS)
    files[transcripts_name(files)] = lines
    out, rejected = compute(tmp_path, files)
    assert ids(out) == [name for name in IDS if name != id_]
    assert list(rejected) == [id_]
    assert reason in rejected[id_]


def test_of_two_transcripts_the_first_is_kept_and_the_second_listed(tmp_path: Path) -> None:
    files = chapter(PART, 7, TEXTS)
    files[transcripts_name(files)] += b"7-1-0001 ADE\n"
    out, rejected = compute(tmp_path, files)
    assert [cut.supervisions[0].text for cut in cuts(out)] == TEXTS
    assert rejected == {IDS[1]: "its transcript is there twice; the first is kept"}


def test_other_rates_and_channels_are_converted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = chapter(PART, 7, TEXTS)
    files[audio_name(files, 0)] = flac(np.ones(8000) * 0.1, 8000)
    files[audio_name(files, 1)] = flac(np.ones((SAMPLE_RATE, 2)) * 0.1)
    archive = write_archive(tmp_path / "archive" / f"{PART}.tar.gz", files)
    for folder in ("out", "work"):
        (tmp_path / folder).mkdir()
    record = features.run(
        settings(), {"archive": archive.parent}, tmp_path / "out", tmp_path / "work"
    )
    assert record["sample_rates"] == {"8000": 1, "16000": 2}
    assert record["channels"] == {"1": 2, "2": 1}
    assert [round(cut.duration, 2) for cut in cuts(tmp_path / "out")][:2] == [1.0, 1.0]
    told = capsys.readouterr().err
    assert "resampled to 16000 Hz: 1 from 8000 Hz" in told
    assert "channels averaged into one: 1 of 2" in told


def test_too_many_bad_utterances_fail_the_part(tmp_path: Path) -> None:
    files = chapter(PART, 7, TEXTS)
    files[audio_name(files, 1)] = b""
    with pytest.raises(LightasrError, match=r"1 of 3 utterances are bad.*max_rejected.*7-1-0001"):
        compute(tmp_path, files, max_rejected=0.1)
