"""Who says what in which part, settled before a sound is made and the same whatever part is built.

A sentence belongs to one part by its hash alone. So the parts cannot share one, and the text for
the language model leaves out every sentence that a development or test part could hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from random import Random

from lightasr.data.sample.config import SampleConfig
from lightasr.data.sample.grammar import Dialogue, draw_dialogue
from lightasr.data.sample.themes import THEMES
from lightasr.data.sample.voices import Voice, deal_voices
from lightasr.errors import LightasrError

TRAIN, DEV, TEST_CLEAN, TEST_OTHER = "train-clean-100", "dev-clean", "test-clean", "test-other"
PARTS: tuple[str, ...] = (TRAIN, DEV, TEST_CLEAN, TEST_OTHER)

# One tenth of all sentences goes to each of these, the rest to training.
_TENTH = {7: DEV, 8: TEST_CLEAN, 9: TEST_OTHER}

# Speakers are numbered from 1 up on top of these, dialogues likewise on a hundred times these.
_FIRST_SPEAKER = {TRAIN: 1000, DEV: 2000, TEST_CLEAN: 3000, TEST_OTHER: 4000}

# Seconds of a recording: its silences, and its letters at 175 words a minute (a fit to the corpus).
_SECONDS_AROUND, _SECONDS_PER_LETTER = 0.47, 0.0512


@dataclass(frozen=True)
class Call:
    """One dialogue of one speaker: what LibriSpeech calls a chapter."""

    speaker: int
    chapter: int
    dialogue: Dialogue

    def utterances(self) -> Iterator[tuple[str, str]]:
        """Every utterance's id and transcript, in order."""
        for i, sentence in enumerate(self.dialogue.sentences):
            yield f"{self.speaker}-{self.chapter}-{i:04d}", sentence


@dataclass(frozen=True)
class Speaker:
    """A numbered voice and the calls it makes."""

    number: int
    voice: Voice
    calls: tuple[Call, ...]

    def utterances(self) -> Iterator[tuple[str, str]]:
        """Every utterance's id and transcript, in order."""
        for call in self.calls:
            yield from call.utterances()


def part_of(sentence: str) -> str:
    """The one part a sentence may occur in."""
    digest = hashlib.sha256(sentence.encode()).digest()
    return _TENTH.get(int.from_bytes(digest[:4], "big") % 10, TRAIN)


def plan_part(part: str, config: SampleConfig) -> list[Speaker]:
    """The speakers of a part and all they say; a sentence is said once in a part."""
    if part not in PARTS:
        raise LightasrError(
            f"the built-in corpus has no part {part!r}: name one of {', '.join(PARTS)}"
        )
    minutes, speakers = _size(part, config)
    rng = Random(f"{config.seed}/{part}")
    voices = deal_voices(part, speakers, rng)
    dialogues = _dialogues(part, rng)
    chapters = count(_FIRST_SPEAKER[part] * 100 + 1)
    planned: list[Speaker] = []
    seconds = 0.0
    for i, voice in enumerate(voices):
        number = _FIRST_SPEAKER[part] + 1 + i
        calls: list[Call] = []
        # Speakers share the time evenly; what one runs over, the next has less.
        while not calls or seconds < 60 * minutes * (i + 1) / speakers:
            call = Call(number, next(chapters), next(dialogues))
            calls.append(call)
            seconds += sum(planned_seconds(text, voice) for text in call.dialogue.sentences)
        planned.append(Speaker(number, voice, tuple(calls)))
    return planned


def planned_seconds(sentence: str, voice: Voice) -> float:
    """About how long this voice takes for a sentence."""
    return _SECONDS_AROUND + _SECONDS_PER_LETTER * len(sentence) * 175 / voice.words_per_minute


def lm_sentences(config: SampleConfig) -> Iterator[str]:
    """Text for the language model: the training part's kind of dialogues, drawn anew."""
    rng = Random(f"{config.seed}/lm")
    sentences = (
        sentence
        for theme in _themes(rng)
        for sentence in draw_dialogue(theme, lambda text: part_of(text) == TRAIN, rng).sentences
    )
    return islice(sentences, config.lm_sentences)


def _size(part: str, config: SampleConfig) -> tuple[float, int]:
    if part == TRAIN:
        return config.train_minutes, config.train_voices
    if part == DEV:
        return config.dev_minutes, config.dev_voices
    return config.test_minutes, config.test_voices


def _dialogues(part: str, rng: Random) -> Iterator[Dialogue]:
    """Dialogues without end, none with a sentence of another part or one said before."""
    said: set[str] = set()
    for theme in _themes(rng):
        dialogue = draw_dialogue(
            theme, lambda text: part_of(text) == part and text not in said, rng
        )
        said.update(dialogue.sentences)
        yield dialogue


def _themes(rng: Random) -> Iterator[str]:
    """All themes in random order, again and again, so that a small part has every one."""
    themes = list(THEMES)
    while True:
        rng.shuffle(themes)
        yield from themes
