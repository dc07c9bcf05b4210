"""Speech from text by the espeak-ng library that comes in the wheel of espeakng-loader."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import espeakng_loader
import numpy as np
import numpy.typing as npt

from lightasr.data.sample.voices import Voice
from lightasr.errors import LightasrError

SAMPLE_RATE = 22_050

# From espeak-ng/speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4

# The library's own volume: at its default of 100 the louder variants clip.
_SAFE_VOLUME = 30

# The library copies the path of its data into a buffer of 160 bytes and appends file names to it.
_LONGEST_DATA_PATH = 120

_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Synthesizer:
    """The one synthesiser of a process.

    The library keeps hidden state (flutter, breath, random numbers) from one sentence to the next,
    so the same calls give the same samples only from the start of a process: make one, in a fresh
    process, for each piece of work that must be reproducible. `scratch` is a folder that outlives
    it.
    """

    def __init__(self, scratch: Path) -> None:
        self._chunks: list[bytes] = []
        # The library calls this for as long as it lives, so it must not be collected before.
        self._callback = _SynthCallback(self._collect)
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = _short_path(Path(espeakng_loader.get_data_path()), scratch)
        rate = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, os.fsencode(data), _INITIALIZE_DONT_EXIT
        )
        if rate != SAMPLE_RATE:
            raise LightasrError(
                f"espeak-ng did not start (it answered {rate}, not {SAMPLE_RATE} Hz) with its data "
                f"in {data}; reinstall espeakng-loader, or set TMPDIR to a shorter path"
            )
        self._library.espeak_SetSynthCallback(self._callback)
        # Starting, the library seeds the noise of breath and flutter with the time of day.
        self._check(self._library.espeak_ng_SetRandSeed(ctypes.c_long(1)), "a random seed")

    def use(self, voice: Voice) -> None:
        """Speak with this voice from now on."""
        self._check(
            self._library.espeak_SetVoiceByName(voice.espeak_name.encode()), voice.espeak_name
        )
        settings = {
            _RATE: voice.words_per_minute,
            _VOLUME: _SAFE_VOLUME,
            _PITCH: voice.pitch,
            _RANGE: voice.pitch_range,
        }
        for parameter, value in settings.items():
            self._check(
                self._library.espeak_SetParameter(parameter, value, 0), f"parameter {parameter}"
            )

    def speak(self, text: str) -> npt.NDArray[np.int16]:
        """The samples of one sentence, at SAMPLE_RATE."""
        self._chunks.clear()
        encoded = text.encode()
        status = self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        self._check(status, repr(text))
        return np.frombuffer(b"".join(self._chunks), dtype=np.int16)

    def _collect(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples is not None:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    @staticmethod
    def _check(status: int, what: str) -> None:
        if status != 0:
            raise LightasrError(f"espeak-ng refused {what} (error {status})")


def _short_path(data: Path, scratch: Path) -> Path:
    """The data's path, or a link to it where it is too long for the library."""
    if len(os.fsencode(data)) <= _LONGEST_DATA_PATH:
        return data
    link = scratch / data.name
    link.symlink_to(data)
    return link
