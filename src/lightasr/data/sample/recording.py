"""Lets one planned speaker speak: from transcripts to the FLAC files of an archive."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from lightasr.data.sample import rooms
from lightasr.data.sample.espeak import Synthesizer
from lightasr.data.sample.grammar import draw_dialogue, spoken_form
from lightasr.data.sample.plan import TEST_OTHER, TRAIN, Speaker, part_of
from lightasr.data.sample.voices import babble_voices

_SPEAKER_DECIBELS = (-30.0, -20.0)
_UTTERANCE_DECIBELS = (-2.0, 2.0)
_SIGNAL_TO_HISS = (35.0, 50.0)
_SIGNAL_TO_NOISE = (15.0, 30.0)
_NOISES = ("babble", "pink", "hum")


def record(part: str, speaker: Speaker, seed: int) -> list[bytes]:
    """The speaker's utterances, in order, as FLAC files; to be called once in a fresh process."""
    rng = np.random.default_rng([seed, speaker.number])
    speaker_level = rng.uniform(*_SPEAKER_DECIBELS)
    signal_to_hiss = rng.uniform(*_SIGNAL_TO_HISS)
    with tempfile.TemporaryDirectory() as scratch:
        synthesizer = Synthesizer(Path(scratch))
        synthesizer.use(speaker.voice)
        voices = [
            rooms.trim(rooms.resample(synthesizer.speak(spoken_form(text))))
            for _, text in speaker.utterances()
        ]
        talkers = _talkers(synthesizer, speaker, seed) if part == TEST_OTHER else []
    files = []
    for voice in voices:
        signal = rooms.surround_with_silence(voice, rng)
        if part == TEST_OTHER:
            signal = _spoil(signal, talkers, rng)
        signal = rooms.add_noise(signal, rooms.white_noise(len(signal), rng), signal_to_hiss)
        signal = rooms.set_level(signal, speaker_level + rng.uniform(*_UTTERANCE_DECIBELS))
        files.append(_flac(signal))
    return files


def _spoil(
    signal: rooms.Signal, talkers: list[rooms.Signal], rng: np.random.Generator
) -> rooms.Signal:
    """Put the speaker into a room with a noise."""
    signal = rooms.add_room(signal, rng)
    kind = _NOISES[int(rng.integers(len(_NOISES)))]
    if kind == "babble":
        noise = rooms.babble(len(signal), talkers, rng)
    elif kind == "pink":
        noise = rooms.pink_noise(len(signal), rng)
    else:
        noise = rooms.hum(len(signal), rng)
    return rooms.add_noise(signal, noise, rng.uniform(*_SIGNAL_TO_NOISE))


def _talkers(synthesizer: Synthesizer, speaker: Speaker, seed: int) -> list[rooms.Signal]:
    """Other callers for the background, who say sentences of training alone."""
    rng = Random(f"{seed}/babble/{speaker.number}")
    talkers = []
    for voice in babble_voices(rng):
        synthesizer.use(voice)
        dialogue = draw_dialogue("timetable", lambda text: part_of(text) == TRAIN, rng)
        speech = [synthesizer.speak(spoken_form(text)) for text in dialogue.sentences]
        talkers.append(rooms.resample(np.concatenate(speech)))
    return talkers


def _flac(signal: rooms.Signal) -> bytes:
    # Level 0 predicts in whole numbers; the higher ones fit predictors in floating point, so that
    # their bytes depend on the processor.
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        rooms.to_int16(signal),
        rooms.SAMPLE_RATE,
        format="FLAC",
        subtype="PCM_16",
        compression_level=0.0,
    )
    return buffer.getvalue()
