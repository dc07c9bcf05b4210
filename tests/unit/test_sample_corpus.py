"""The built-in corpus: reproducible, split without leaks, and in LibriSpeech's form."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

import espeakng_loader
import numpy as np
import pytest
import soundfile

from lightasr.data.sample import rooms
from lightasr.data.sample.build import LM_TEXT, build_lm_text, build_part
from lightasr.data.sample.config import SampleConfig
from lightasr.data.sample.espeak import Synthesizer
from lightasr.data.sample.grammar import (
    DIALOGUE_SENTENCES,
    SENTENCE_WORDS,
    draw_dialogue,
    expand,
    spoken_form,
)
from lightasr.data.sample.plan import (
    DEV,
    PARTS,
    TEST_CLEAN,
    TEST_OTHER,
    TRAIN,
    lm_sentences,
    part_of,
    plan_part,
)
from lightasr.data.sample.themes import CLOSINGS, OPENINGS, SLOTS, THEMES
from lightasr.data.sample.voices import BABBLE_VARIANTS, VARIANTS, Voice, deal_voices
from lightasr.errors import LightasrError

TINY = SampleConfig(
    train_minutes=0.5,
    train_voices=2,
    dev_minutes=0.2,
    dev_voices=1,
    test_minutes=0.5,
    test_voices=2,
    lm_sentences=3000,
)
HELD_OUT = (DEV, TEST_CLEAN, TEST_OTHER)


@dataclass(frozen=True)
class Corpus:
    """The tiny corpus, packed and unpacked."""

    archives: Path
    root: Path

    def transcripts(self, part: str) -> dict[str, str]:
        lines = [
            line.split(" ", maxsplit=1)
            for path in sorted((self.root / part).rglob("*.trans.txt"))
            for line in path.read_text().splitlines()
        ]
        assert len({utterance for utterance, _ in lines}) == len(lines)
        return dict(lines)

    def audio(self, part: str) -> dict[str, np.ndarray]:
        signals = {}
        for path in sorted((self.root / part).rglob("*.flac")):
            samples, rate = soundfile.read(path)
            assert rate == 16_000
            signals[path.stem] = samples
        return signals

    def table(self, name: str) -> list[list[str]]:
        lines = (self.root / name).read_text().splitlines()
        return [
            [cell.strip() for cell in line.split("|")]
            for line in lines
            if line and not line.startswith(";")
        ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("sample")
    for part in PARTS:
        build_part(part, TINY, folder, processes=2)
        with tarfile.open(folder / f"{part}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    build_lm_text(TINY, folder)
    return Corpus(folder, folder / "LibriSpeech")


@pytest.fixture(scope="module")
def lm_text() -> list[str]:
    """The text for the language model at its full size."""
    return list(lm_sentences(SampleConfig()))


def lm_lines(folder: Path) -> list[str]:
    return gzip.decompress((folder / LM_TEXT).read_bytes()).decode().splitlines()


# Reproducible


@pytest.mark.parametrize("part", [TRAIN, TEST_OTHER])
def test_a_part_built_alone_by_one_process_has_the_same_bytes(
    corpus: Corpus, tmp_path: Path, part: str
) -> None:
    build_part(part, TINY, tmp_path, processes=1)
    again, first = (folder / f"{part}.tar.gz" for folder in (tmp_path, corpus.archives))
    assert again.read_bytes() == first.read_bytes()


def test_every_voice_sounds_the_same_at_another_time_of_day() -> None:
    code = (
        "import hashlib, sys, tempfile; from pathlib import Path\n"
        "from lightasr.data.sample.espeak import Synthesizer\n"
        "from lightasr.data.sample.voices import BABBLE_VARIANTS, VARIANTS, Voice\n"
        "spoken = [n for by_sex in VARIANTS.values() for names in by_sex.values() for n in names]\n"
        "sound = hashlib.sha256()\n"
        "with tempfile.TemporaryDirectory() as scratch:\n"
        "    synthesizer = Synthesizer(Path(scratch))\n"
        "    for name in [*spoken, *BABBLE_VARIANTS]:\n"
        "        synthesizer.use(Voice(name, 'en', 'F', 50, 50, 175))\n"
        "        sound.update(synthesizer.speak('is the lift working again?').tobytes())\n"
        "print(sound.hexdigest())\n"
    )

    def digest() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout

    first = digest()
    # The library's own seed is the time in whole seconds.
    time.sleep(1.1)
    assert digest() == first


def test_bytes_do_not_depend_on_the_hash_seed(corpus: Corpus, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from lightasr.data.sample.build import build_lm_text, build_part\n"
        "from lightasr.data.sample.config import SampleConfig\n"
        "config = SampleConfig.model_validate_json(sys.argv[1])\n"
        "build_part('dev-clean', config, Path(sys.argv[2]))\n"
        "build_lm_text(config, Path(sys.argv[2]))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, TINY.model_dump_json(), str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
    )
    for name in (f"{DEV}.tar.gz", LM_TEXT):
        assert (tmp_path / name).read_bytes() == (corpus.archives / name).read_bytes()


def test_another_seed_makes_another_corpus() -> None:
    other = TINY.model_copy(update={"seed": 2})
    assert plan_part(DEV, other) != plan_part(DEV, TINY)
    assert list(lm_sentences(other)) != list(lm_sentences(TINY))


# Without leaks


def test_no_two_parts_share_a_speaker_a_chapter_a_sentence_or_a_voice() -> None:
    owner: dict[tuple[str, object], str] = {}
    for part in PARTS:
        for speaker in plan_part(part, SampleConfig()):
            things: list[tuple[str, object]] = [
                ("speaker", speaker.number),
                ("variant", speaker.voice.variant),
                *(("chapter", call.chapter) for call in speaker.calls),
                *(("sentence", sentence) for _, sentence in speaker.utterances()),
            ]
            for thing in things:
                assert owner.setdefault(thing, part) == part, thing


def test_background_voices_speak_in_no_part() -> None:
    spoken = {name for by_sex in VARIANTS.values() for names in by_sex.values() for name in names}
    assert not spoken & set(BABBLE_VARIANTS)


def test_a_sentence_is_said_once_in_a_part() -> None:
    for part in PARTS:
        said = [text for s in plan_part(part, SampleConfig()) for _, text in s.utterances()]
        assert len(said) == len(set(said))


def test_the_language_model_text_has_no_development_or_test_sentence(lm_text: list[str]) -> None:
    config = SampleConfig()
    held_out = {
        sentence
        for part in HELD_OUT
        for speaker in plan_part(part, config)
        for _, sentence in speaker.utterances()
    }
    assert len(lm_text) == config.lm_sentences
    assert held_out.isdisjoint(lm_text)


def test_the_language_model_text_is_written_a_sentence_a_line(corpus: Corpus) -> None:
    assert lm_lines(corpus.archives) == list(lm_sentences(TINY))


def test_a_longer_training_part_leaves_the_others_as_they_were() -> None:
    longer = TINY.model_copy(update={"train_minutes": 2.0, "train_voices": 5})
    assert [plan_part(part, longer) for part in HELD_OUT] == [
        plan_part(part, TINY) for part in HELD_OUT
    ]


# In LibriSpeech's form


def test_lhotse_reads_every_part_with_its_own_recipe(corpus: Corpus) -> None:
    from lhotse.recipes import prepare_librispeech

    manifests = prepare_librispeech(corpus.root, dataset_parts=list(PARTS))
    for part in PARTS:
        planned = dict(u for speaker in plan_part(part, TINY) for u in speaker.utterances())
        assert {s.id: s.text for s in manifests[part]["supervisions"]} == planned
        assert {r.sampling_rate for r in manifests[part]["recordings"]} == {16_000}


@pytest.mark.parametrize("part", PARTS)
def test_every_transcript_has_its_audio(corpus: Corpus, part: str) -> None:
    assert corpus.transcripts(part).keys() == corpus.audio(part).keys()


@pytest.mark.parametrize("part", PARTS)
def test_no_recording_is_silent_clipped_or_out_of_proportion(corpus: Corpus, part: str) -> None:
    transcripts = corpus.transcripts(part)
    for utterance, signal in corpus.audio(part).items():
        assert -40 < rooms.level(signal) < -12, utterance
        assert np.abs(signal).max() < 0.95, utterance
        letters_per_second = len(transcripts[utterance]) / (len(signal) / 16_000)
        assert 7 < letters_per_second < 25, utterance


@pytest.mark.parametrize("part", PARTS)
def test_the_archive_holds_plain_files_without_time_or_owner(corpus: Corpus, part: str) -> None:
    with tarfile.open(corpus.archives / f"{part}.tar.gz") as archive:
        members = archive.getmembers()
    assert all(member.isreg() for member in members)
    assert {(member.mtime, member.uid, member.gid) for member in members} == {(0, 0, 0)}
    assert len({member.name for member in members}) == len(members)


def test_dialogues_name_every_chapter_with_its_speaker_and_length(corpus: Corpus) -> None:
    found = set()
    for part in PARTS:
        lengths: dict[tuple[str, str], int] = defaultdict(int)
        for utterance in corpus.transcripts(part):
            speaker, chapter, _ = utterance.split("-")
            lengths[speaker, chapter] += 1
        found |= {(c, s, part, str(length)) for (s, c), length in lengths.items()}
    listed = corpus.table("DIALOGUES.TXT")
    assert {(c, s, part, length) for c, s, part, _, length in listed} == found
    assert {theme for *_, theme, _ in listed} <= set(THEMES)


def test_speakers_and_chapters_name_every_folder(corpus: Corpus) -> None:
    folders = {
        (path.parent.parent.name, path.parent.name, path.name)
        for part in PARTS
        for path in (corpus.root / part).glob("*/*")
    }
    chapters = {
        (part, reader, chapter) for chapter, reader, _, part, _ in corpus.table("CHAPTERS.TXT")
    }
    speakers = {(part, speaker) for speaker, _, part, _, _ in corpus.table("SPEAKERS.TXT")}
    assert chapters == folders
    assert speakers == {(part, speaker) for part, speaker, _ in folders}


def test_planned_minutes_are_near_the_recorded_ones(corpus: Corpus) -> None:
    for part in PARTS:
        listed = sum(float(row[3]) for row in corpus.table("SPEAKERS.TXT") if row[2] == part)
        recorded = sum(len(signal) for signal in corpus.audio(part).values()) / 16_000 / 60
        assert listed == pytest.approx(recorded, rel=0.25)


def test_an_unknown_part_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match=r"no part 'dev-dirty'.*dev-clean"):
        build_part("dev-dirty", TINY, tmp_path)
    assert not list(tmp_path.iterdir())


# Worth recognising


def test_the_default_corpus_is_large_and_varied_enough(lm_text: list[str]) -> None:
    speakers = {part: plan_part(part, SampleConfig()) for part in PARTS}
    assert {part: len(members) for part, members in speakers.items()} == {
        TRAIN: 32,
        DEV: 6,
        TEST_CLEAN: 8,
        TEST_OTHER: 8,
    }
    assert len({speaker.voice for speaker in speakers[TRAIN]}) >= 24
    for members in speakers.values():
        assert {speaker.voice.sex for speaker in members} == {"F", "M"}
        assert len({call.dialogue.theme for s in members for call in s.calls}) >= 8
    words = {word for sentence in lm_text for word in sentence.split()}
    assert 500 <= len(words) <= 950


def test_the_language_model_text_knows_every_word_of_the_tests(lm_text: list[str]) -> None:
    known = {word for sentence in lm_text for word in sentence.split()}
    for part in HELD_OUT:
        for speaker in plan_part(part, SampleConfig()):
            for _, sentence in speaker.utterances():
                assert known.issuperset(sentence.split()), sentence


def test_sentences_are_upper_case_words_with_the_right_article(lm_text: list[str]) -> None:
    for sentence in lm_text:
        assert re.fullmatch(r"[A-Z']+( [A-Z']+)*", sentence), sentence
        assert len(sentence.split()) in SENTENCE_WORDS
        assert not re.search(r"\bA [AEIO]|\bAN (?!HOUR)[^AEIO]", sentence), sentence


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("part", PARTS)
def test_every_theme_gives_whole_dialogues_to_every_part(part: str, theme: str) -> None:
    dialogue = draw_dialogue(theme, lambda text: part_of(text) == part, Random(part))
    assert len(dialogue.sentences) in DIALOGUE_SENTENCES
    assert {part_of(sentence) for sentence in dialogue.sentences} == {part}


def test_a_numbered_slot_keeps_its_value_and_a_plain_one_does_not() -> None:
    bound: dict[str, str] = {}
    kept = {expand("{surname1}", bound, Random(seed)) for seed in range(20)}
    drawn = {expand("{surname}", bound, Random(seed)) for seed in range(20)}
    assert kept == set(bound.values())
    assert len(drawn) > 5


def test_every_slot_is_used() -> None:
    patterns = [
        *OPENINGS,
        *CLOSINGS,
        *(pattern for patterns in THEMES.values() for pattern in patterns),
        *(pattern for patterns in SLOTS.values() for pattern in patterns),
    ]
    used = {name.rstrip("0123456789") for p in patterns for name in re.findall(r"\{(\w+)\}", p)}
    assert used == set(SLOTS)


def test_questions_are_spoken_as_questions() -> None:
    assert spoken_form("IS THE LIFT OPEN") == "is the lift open?"
    assert spoken_form("I'LL TAKE LINE ONE") == "i'll take line one."


# Voices and sound


def test_every_variant_exists_in_the_synthesiser() -> None:
    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    known = {path.name for path in folder.iterdir()}
    dealt = {name for by_sex in VARIANTS.values() for names in by_sex.values() for name in names}
    assert dealt | set(BABBLE_VARIANTS) <= known


def test_more_voices_than_variants_come_again_with_another_accent() -> None:
    voices = deal_voices(DEV, 12, Random(0))
    assert len({(voice.variant, voice.accent) for voice in voices}) == 12


def test_the_synthesiser_finds_its_data_under_a_path_longer_than_its_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 20) / ("deeper" * 20) / "espeak-ng-data"
    deep.parent.mkdir(parents=True)
    deep.symlink_to(espeakng_loader.get_data_path())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(deep))
    synthesizer = Synthesizer(scratch)
    synthesizer.use(Voice("f2", "en-US", "F", 50, 50, 175))
    assert len(synthesizer.speak("hello there.")) > 10_000


def test_an_unknown_voice_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match=r"en-XX\+f2"):
        Synthesizer(tmp_path).use(Voice("f2", "en-XX", "F", 50, 50, 175))


@pytest.mark.parametrize(("hertz", "gain"), [(300, 1.0), (3000, 1.0), (7000, 1.0), (9500, 0.0)])
def test_resampling_keeps_the_pass_band_and_stops_what_would_fold_back(
    hertz: int, gain: float
) -> None:
    tone = 16_000 * np.sin(2 * np.pi * hertz * np.arange(22_050) / 22_050)
    resampled = rooms.resample(np.round(tone).astype(np.int16))
    assert len(resampled) == 16_000
    expected = gain * 16_000 / 32_768 * np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(resampled[200:-200], expected[200:-200], atol=5e-3)


@pytest.mark.parametrize("signal_to_noise", [8.0, 20.0])
def test_noise_is_mixed_at_the_level_asked_for(signal_to_noise: float) -> None:
    rng = np.random.default_rng(0)
    signal = rooms.hum(16_000, rng)
    mixed = rooms.add_noise(signal, rooms.pink_noise(16_000, rng), signal_to_noise)
    assert rooms.level(signal) - rooms.level(mixed - signal) == pytest.approx(
        signal_to_noise, abs=0.1
    )


def test_a_room_lengthens_a_click() -> None:
    click = np.zeros(16_000)
    click[100] = 1.0
    after = rooms.add_room(click, np.random.default_rng(0))[1000:]
    assert np.abs(after).max() > 0.001


def test_test_other_is_noisier_than_test_clean(corpus: Corpus) -> None:
    def median_dynamic_range(part: str) -> float:
        # Noise and echo fill the pauses, so loud and quiet frames come closer.
        ranges = []
        for signal in corpus.audio(part).values():
            frames = signal[: len(signal) // 320 * 320].reshape(-1, 320)
            energies = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
            ranges.append(np.percentile(energies, 95) - np.percentile(energies, 5))
        return float(np.median(ranges))

    assert median_dynamic_range(TEST_OTHER) < median_dynamic_range(TEST_CLEAN) - 10


def test_the_config_can_be_read_without_numpy_or_torch() -> None:
    code = (
        "import sys, lightasr.data.sample.config\n"
        "heavy = {'numpy', 'torch', 'lhotse', 'soundfile'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
