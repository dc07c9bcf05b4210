"""Stage `features`: every utterance of an archive is packed, or listed with what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi as kaldi

from lightasr import schema
from lightasr.data import features
from lightasr.data.batches import FeatureStore, read_utterances
from lightasr.errors import LightasrError
from lightasr.plan import _Planner
from lightasr.text.tokenizers import CharTokenizer
from lightasr.text.transcripts import read_transcripts
from tones import chapter, flac, tone, write_archive

PART = "dev-clean"
TEXTS = ["AB CD", "EE", "ACE BAD"]


def compute(
    tmp_path: Path, files: dict[str, bytes], max_rejected: float = 0.9
) -> tuple[Path, list[str]]:
    """Features of an archive of these files, and the lines of `rejected.tsv`."""
    archive = write_archive(tmp_path / "archive" / f"{PART}.tar.gz", files)
    out = tmp_path / "out"
    out.mkdir()
    config = schema.FeaturesSlice(part=PART, mels=20, max_rejected=max_rejected)
    features.run(config, {"archive": archive.parent}, out, tmp_path)
    return out, (out / "rejected.tsv").read_text().splitlines()[1:]


def audio_name(files: dict[str, bytes], number: int) -> str:
    return next(name for name in files if name.endswith(f"{number:04d}.flac"))


def test_packed_features_are_kaldis(tmp_path: Path) -> None:
    out, rejected = compute(tmp_path, chapter(PART, 7, TEXTS))
    utterances = read_utterances([out], CharTokenizer())
    assert [u.text for u in utterances] == TEXTS
    assert [u.id for u in utterances] == ["7-1-0000", "7-1-0001", "7-1-0002"]
    assert {u.speaker for u in utterances} == {"7"}
    assert not rejected
    rng = np.random.default_rng([0, 7])
    samples = torch.tensor(np.round(tone(TEXTS[0], rng) * 2**15))[None].float()
    expected = kaldi.fbank(samples, num_mel_bins=20, dither=0.0, snip_edges=False)
    packed = FeatureStore().load(utterances[0])
    assert packed.shape == expected.shape
    torch.testing.assert_close(packed, expected, atol=0.1, rtol=0)  # lilcom rounds


def test_the_directory_can_be_moved(tmp_path: Path) -> None:
    out, _ = compute(tmp_path, chapter(PART, 7, TEXTS))
    moved = out.rename(tmp_path / "elsewhere")
    utterances = read_utterances([moved], CharTokenizer())
    assert len(FeatureStore().collate(utterances).features_btf) == 3


def test_transcripts_may_come_before_or_after_the_audio(tmp_path: Path) -> None:
    files = chapter(PART, 7, TEXTS)
    out, rejected = compute(tmp_path, dict(reversed(files.items())))
    assert len(read_utterances([out], CharTokenizer())) == 3
    assert not rejected


def bad_audio(files: dict[str, bytes], payload: bytes) -> dict[str, bytes]:
    return {**files, audio_name(files, 1): payload}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "7-1-0001: not audio"),
        (b"no FLAC at all", "7-1-0001: not audio"),
        (flac(np.ones(16000))[:-900], "7-1-0001"),
    ],
    ids=["empty", "rubbish", "truncated"],
)
def test_bad_audio_is_listed_and_the_rest_is_kept(
    payload: bytes, reason: str, tmp_path: Path
) -> None:
    out, rejected = compute(tmp_path, bad_audio(chapter(PART, 7, TEXTS), payload))
    assert len(read_utterances([out], CharTokenizer())) == 2
    assert len(rejected) == 1
    assert reason in rejected[0]


def test_halves_without_their_other_half_are_listed(tmp_path: Path) -> None:
    files = chapter(PART, 7, TEXTS)
    transcript = next(name for name in files if name.endswith(".txt"))
    files[transcript] = b"7-1-0000 AB CD\n7-1-0002 ACE BAD\n7-1-0009 EE\n7-1-0010\n"
    out, rejected = compute(tmp_path, files)
    assert len(read_utterances([out], CharTokenizer())) == 2
    assert rejected == ["7-1-0001\tno transcript", "7-1-0009\tno audio", "7-1-0010\tno audio"]


def test_audio_that_is_there_twice_is_listed(tmp_path: Path) -> None:
    files = chapter(PART, 7, TEXTS)
    name = audio_name(files, 0)
    _, rejected = compute(tmp_path, {**files, name.replace("/7/1/", "/7/2/"): files[name]})
    assert rejected == ["7-1-0000\tits audio is there twice"]


def test_too_many_bad_utterances_fail_the_part(tmp_path: Path) -> None:
    files = bad_audio(chapter(PART, 7, TEXTS), b"")
    with pytest.raises(LightasrError, match=r"1 of 3 utterances are bad.*max_rejected.*7-1-0001"):
        compute(tmp_path, files, max_rejected=0.1)


def test_an_empty_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match="it is empty"):
        compute(tmp_path, {"LibriSpeech/README.TXT": b"nothing"})


def test_a_truncated_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive" / f"{PART}.tar.gz", chapter(PART, 7, TEXTS))
    archive.write_bytes(archive.read_bytes()[:-2000])
    (tmp_path / "out").mkdir()
    config = schema.FeaturesSlice(part=PART, mels=20)
    with pytest.raises(LightasrError, match=rf"{PART}\.tar\.gz: damaged archive"):
        features.run(config, {"archive": archive.parent}, tmp_path / "out", tmp_path)


def test_speeds_are_copies_with_ids_of_their_own_whose_text_counts_once(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive" / f"{PART}.tar.gz", chapter(PART, 7, TEXTS))
    out = tmp_path / "out"
    out.mkdir()
    config = schema.FeaturesSlice(part=PART, mels=20, speeds=(0.9, 1.0, 1.1))
    features.run(config, {"archive": archive.parent}, out, tmp_path)
    frames = {u.id: u.frames for u in read_utterances([out], CharTokenizer())}
    assert len(frames) == 9
    for number in range(3):
        name = f"7-1-{number:04d}"
        assert frames[f"{name}-x0.9"] == pytest.approx(frames[name] / 0.9, abs=1.5)
        assert frames[f"{name}-x1.1"] == pytest.approx(frames[name] / 1.1, abs=1.5)
    assert [text for _, text in read_transcripts(out)] == TEXTS


def test_only_training_parts_are_read_at_other_speeds() -> None:
    experiment = schema.Experiment(features=schema.Features(speeds=(0.9, 1.0, 1.1)))
    (run,) = _Planner({"sample": DATASET}).runs(experiment, (1,))
    read = {
        job.config["part"]: job.config["speeds"]
        for job in run.train.inputs.values()
        if job.stage == "features"
    }
    assert read == {"train-clean-100": [0.9, 1.0, 1.1], "dev-clean": [1.0]}


DATASET = schema.Dataset(
    builtin=True,
    parts={
        part: schema.Part()
        for part in ("train-clean-100", "dev-clean", "test-clean", "test-other", "lm-text")
    },
)
