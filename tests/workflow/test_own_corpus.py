"""The scale `own`: recordings of any format, in any form of manifest, become a model's batches."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from lightasr.data.batches import FeatureStore, plan_batches, read_utterances
from lightasr.data.cuts import read_cuts
from lightasr.errors import LightasrError
from lightasr.jobs import Job
from lightasr.plan import Plan, load_plan
from lightasr.stage import execute
from lightasr.text.tokenizers import load_tokenizer
from planning import write_study
from tones import SAMPLE_RATE, sentences, tone

SHARED = Path(__file__).parents[3] / "shared" / "data"
PARTS = ("train", "dev", "test")
TINY = {"features": {"mels": 16, "speeds": [1.0]}, "decode": {"decoders": ["greedy"]}}


@dataclass(frozen=True)
class Spoken:
    """An utterance, and the stretch of the file that it is."""

    id: str
    speaker: str
    text: str
    audio: Path
    segment: tuple[float, float, int] | None = None
    """Start, length and channel; None: all of the file."""


def recorded(folder: Path, part: str) -> list[Spoken]:
    """Files of several formats, rates and channel counts, and one that holds two utterances."""
    rng = np.random.default_rng(len(part))
    folder = folder / part
    folder.mkdir(parents=True)
    texts = sentences(6, seed=len(part))
    melodies = [tone(text, rng).astype(np.float32) for text in texts]
    files = {
        "call.wav": (melodies[0][::2], SAMPLE_RATE // 2),  # no tone is above its 4 kHz
        "book.flac": (melodies[1], SAMPLE_RATE),
        "room.wav": (np.stack([melodies[2]] * 2, axis=1), SAMPLE_RATE),
        "web.ogg": (melodies[3], SAMPLE_RATE),
    }
    for name, (samples, rate) in files.items():
        soundfile.write(folder / name, samples, rate)
    spoken = [
        Spoken(f"{part}-{number}", f"{part}-ann", text.lower() + ".", folder / name)
        for number, (text, name) in enumerate(zip(texts, files, strict=False))
    ]
    return spoken + meeting(folder / "meeting.wav", part, texts[4:], melodies[4:])


def meeting(audio: Path, part: str, texts: list[str], voices: list[np.ndarray]) -> list[Spoken]:
    """Two people, one after the other and each on a channel."""
    pause = np.zeros(SAMPLE_RATE // 2, dtype=np.float32)
    first = np.concatenate([pause, voices[0], pause, np.zeros_like(voices[1])])
    second = np.concatenate([pause, np.zeros_like(voices[0]), pause, voices[1]])
    soundfile.write(audio, np.stack([first, second], axis=1), SAMPLE_RATE)
    starts = (0.5, 1 + len(voices[0]) / SAMPLE_RATE)
    return [
        Spoken(f"{part}-m{i}", f"{part}-m{i}", text, audio, (start, len(voice) / SAMPLE_RATE, i))
        for i, (text, voice, start) in enumerate(zip(texts, voices, starts, strict=True))
    ]


# --- the three forms of a manifest; each returns what `datasets` says of the part ---------------


def as_tsv(folder: Path, part: str, spoken: list[Spoken]) -> dict[str, str]:
    lines = ["id\tspeaker\taudio\ttext\tstart\tseconds\tchannel"]
    for one in spoken:
        segment = one.segment or ("", "", "")
        lines.append("\t".join(map(str, (one.id, one.speaker, one.audio, one.text, *segment))))
    (folder / f"{part}.tsv").write_text("\n".join(lines))
    return {"manifest": str(folder / f"{part}.tsv")}


def as_kaldi(folder: Path, part: str, spoken: list[Spoken]) -> dict[str, str]:
    """With segments, which Kaldi wants of all recordings or of none."""
    data = folder / part
    data.mkdir()
    recordings = {one.audio.stem: f"{one.audio.stem} {one.audio}" for one in spoken}
    recordings["book"] = f"book flac -c -d -s {spoken[1].audio} |"
    lines = {"wav.scp": list(recordings.values()), "text": [], "utt2spk": [], "segments": []}
    for one in spoken:
        start, seconds, channel = one.segment or (0, None, "")
        end = -1 if seconds is None else start + seconds
        lines["segments"].append(f"{one.id} {one.audio.stem} {start} {end} {channel}")
        lines["text"].append(f"{one.id} {one.text}")
        lines["utt2spk"].append(f"{one.id} {one.speaker}")
    for name, rows in lines.items():
        (data / name).write_text("\n".join(rows) + "\n")
    return {"manifest": str(data)}


def as_lhotse(folder: Path, part: str, spoken: list[Spoken]) -> dict[str, str]:
    """All parts in one directory, as lhotse's recipes leave them."""
    recordings, supervisions = {}, []
    for one in spoken:
        info = soundfile.info(one.audio)
        channels = list(range(info.channels))
        recordings[one.audio.stem] = {
            "id": one.audio.stem,
            "sources": [{"type": "file", "channels": channels, "source": str(one.audio)}],
            "sampling_rate": info.samplerate,
            "num_samples": info.frames,
            "duration": info.duration,
        }
        start, seconds, channel = one.segment or (0.0, info.duration, channels)
        supervisions.append(
            {
                "id": one.id,
                "recording_id": one.audio.stem,
                "start": start,
                "duration": seconds,
                "channel": channel,
                "text": one.text,
                "speaker": one.speaker,
            }
        )
    for kind, trees in (("recordings", recordings.values()), ("supervisions", supervisions)):
        text = "".join(json.dumps(tree) + "\n" for tree in trees)
        path = folder / f"mine_{kind}_{part}.jsonl.gz"
        path.write_bytes(gzip.compress(text.encode()))
    return {"manifest": str(folder), "split": part}


Form = Callable[[Path, str, list[Spoken]], dict[str, str]]
FORMS: list[Form] = [as_tsv, as_kaldi, as_lhotse]


# --- a project that reads them ------------------------------------------------------------------


@dataclass(frozen=True)
class Own:
    """A project whose scale `own` names these parts."""

    project: Path
    parts: dict[str, dict[str, str]] = field(default_factory=dict)

    def plan(self) -> Plan:
        """After what a user does: the manifests are written into the scale."""
        scale = self.project / "config" / "scales" / "own.yaml"
        text = scale.read_text()
        for part, named in self.parts.items():
            text = text.replace(f"{{manifest: manifests/{part}.tsv}}", json.dumps(named))
        scale.write_text(text)
        write_study(self.project, columns=["params", "wer/*/*"], base=TINY)
        return load_plan(self.project, "own", ["mine"])


def features_of(plan: Plan) -> dict[str, Path]:
    """The parts' directories of features, made if they are not there."""
    found = {}
    for job in plan.of_stage("features"):
        execute(plan, job)
        found[job.config["part"]] = plan.project / job.dir
    return found


def told_of(features: Path) -> dict[str, Any]:
    receipt: dict[str, Any] = json.loads((features / "run.json").read_text())
    return receipt


def batches_of(plan: Plan, features: dict[str, Path]) -> list[Any]:
    """What a model sees of the training part."""
    (job,) = plan.of_stage("tokenizer")
    execute(plan, job)
    config = next(plan.experiments).config
    tokenizer = load_tokenizer(plan.project / job.dir)
    utterances = read_utterances([features["train"]], config.text, tokenizer)
    planned = plan_batches([utterance.seconds for utterance in utterances], 30)
    return list(FeatureStore().stream(utterances, planned))


@pytest.fixture
def recordings(tmp_path: Path) -> dict[str, list[Spoken]]:
    return {part: recorded(tmp_path / "audio", part) for part in PARTS}


@pytest.fixture
def own(
    project: Path, tmp_path: Path, recordings: dict[str, list[Spoken]]
) -> Callable[[Form], Own]:
    def made(form: Form) -> Own:
        folder = tmp_path / form.__name__
        folder.mkdir()
        parts = {part: form(folder, part, spoken) for part, spoken in recordings.items()}
        return Own(project, parts)

    return made


@pytest.mark.parametrize("form", FORMS)
def test_recordings_of_any_kind_become_batches(
    own: Callable[[Form], Own], form: Form, recordings: dict[str, list[Spoken]]
) -> None:
    plan = own(form).plan()
    features = features_of(plan)
    told = told_of(features["train"])
    assert told["utterances"] == len(recordings["train"])
    assert told["rejected"] == 0
    assert told["sample_rates"] == {"8000": 1, "16000": 5}
    assert told["channels"] == {"1": 3, "2": 3}
    batches = batches_of(plan, features)
    seen = {utterance.id: utterance for batch in batches for utterance in batch.utterances}
    assert seen.keys() == {one.id for one in recordings["train"]}
    for one in recordings["train"]:
        assert seen[one.id].text == one.text.upper().rstrip("."), "as the scale writes text"
        assert seen[one.id].speaker == one.speaker
        assert seen[one.id].seconds == pytest.approx(0.12 * len(seen[one.id].text), abs=0.001)
    assert all(batch.features_btf.shape[2] == 16 for batch in batches)


def test_a_form_changes_nothing_of_what_is_heard(own: Callable[[Form], Own], project: Path) -> None:
    scale = project / "config" / "scales" / "own.yaml"
    shipped = scale.read_text()
    heard = []
    for form in FORMS:
        scale.write_text(shipped)
        digests = {}
        for _, cut in chain(*(read_cuts(path) for path in features_of(own(form).plan()).values())):
            digests[cut["id"]] = cut["custom"]["digest"]
        heard.append(digests)
    assert len(heard[0]) == 18
    assert heard[0] == heard[1] == heard[2]


def test_a_table_has_the_parts_of_the_corpus(own: Callable[[Form], Own]) -> None:
    (study,) = own(as_tsv).plan().studies
    assert study.columns == ("params", "wer/test/greedy")


def test_a_changed_line_makes_its_part_again_and_no_other(own: Callable[[Form], Own]) -> None:
    corpus = own(as_tsv)
    before = {job.config["part"]: job.key for job in corpus.plan().of_stage("features")}
    dev = Path(corpus.parts["dev"]["manifest"])
    dev.write_text(dev.read_text().replace("dev-ann", "dev-eve", 1))
    after = {job.config["part"]: job.key for job in corpus.plan().of_stage("features")}
    assert {part for part in PARTS if before[part] != after[part]} == {"dev"}


def test_a_model_may_learn_from_recordings_that_nobody_has_written_down(
    own: Callable[[Form], Own], project: Path, tmp_path: Path
) -> None:
    corpus = own(as_tsv)
    corpus.plan()
    lines = [
        line.split("\t")
        for line in Path(corpus.parts["train"]["manifest"]).read_text().splitlines()
    ]
    heard = tmp_path / "heard.tsv"
    heard.write_text("\n".join("\t".join(line[:3] + line[4:]) for line in lines))
    scale = project / "config" / "scales" / "own.yaml"
    part = json.dumps({"manifest": str(heard), "transcribed": False})
    scale.write_text(
        scale.read_text().replace("    parts:\n", f"    parts:\n      heard: {part}\n")
    )
    learnt = {"name": "bestrq", "codes": 8}
    pretrain = {
        "objective": learnt,
        "parts": ["heard"],
        "train": {"epochs": 1, "batch_seconds": 10},
        "collapse": {"rank": 1.0, "codes": 1.0, "guesses": 1.0, "gain": -9.0},
    }
    encoder = {"name": "transformer", "layers": 1, "dim": 16, "mixer": {"name": "mhsa", "heads": 2}}
    base = TINY | {"model": {"encoder": encoder}, "pretrain": pretrain}
    write_study(project, columns=["params"], base=base)
    plan = load_plan(project, "own", ["mine"])
    (job,) = plan.of_stage("pretrain")
    assert job.inputs["features/heard"].config["transcribed"] is False
    for made in job.inputs.values():
        execute(plan, made)
    execute(plan, job)
    assert told_of(project / job.dir)["steps"] > 0
    write_study(project, columns=["params"], base=base | {"corpus": {"train": ["heard"]}})
    with pytest.raises(LightasrError, match=r"corpus\.train: 'heard' is not transcribed: only"):
        load_plan(project, "own", ["mine"])


def features_job(plan: Plan, part: str) -> Job:
    return next(job for job in plan.of_stage("features") if job.config["part"] == part)


def test_what_is_wrong_with_utterances_is_listed_and_too_much_is_an_error(
    own: Callable[[Form], Own], project: Path
) -> None:
    corpus = own(as_tsv)
    path = Path(corpus.parts["test"]["manifest"])
    path.write_text(path.read_text() + f"\nmute\tme\t{path}\t\t\t\t\nodd\tme\t{path}\tYES\t\t\t")
    plan = corpus.plan()
    with pytest.raises(LightasrError, match=r"2 of 8 utterances are bad .*features\.max_rejected"):
        execute(plan, features_job(plan, "test"))
    scale = project / "config" / "scales" / "own.yaml"
    scale.write_text(scale.read_text().replace("features: {", "features: {max_rejected: 0.5, "))
    plan = corpus.plan()
    job = features_job(plan, "test")
    execute(plan, job)
    rejected = (project / job.dir / "rejected.tsv").read_text().splitlines()
    assert rejected[1] == f"mute\t{path}:8: no text"
    assert rejected[2].startswith(f"odd\t{path}: not audio that can be decoded")


@pytest.mark.skipif(not SHARED.is_dir(), reason="real speech in ../shared/data is absent")
def test_real_speech_becomes_batches(project: Path, tmp_path: Path) -> None:
    """FLAC, MP3 and Opus, by books and by spelt words."""
    lines = []
    for name in ("an4_train.tsv", "librispeech_train.tsv", "librispeech_valid.tsv"):
        header, *rows = (SHARED / name).read_text().splitlines()
        lines += [row.split("\t") for row in rows[::200]]
    columns = header.split("\t")
    lines = [[*line[:2], str(SHARED / line[2]), *line[3:]] for line in lines]
    path = tmp_path / "all.tsv"
    text = ["\t".join([*columns, "split"])]
    text += ["\t".join([*line, PARTS[i % 3]]) for i, line in enumerate(lines)]
    path.write_text("\n".join(text))
    corpus = Own(project, {part: {"manifest": str(path), "split": part} for part in PARTS})
    plan = corpus.plan()
    features = features_of(plan)
    counts = [told_of(features[part]) for part in PARTS]
    assert sum(told["utterances"] for told in counts) == len(lines)
    assert {rate for told in counts for rate in told["sample_rates"]} >= {"16000"}
    assert batches_of(plan, features)
