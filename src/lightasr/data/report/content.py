"""What the data report tells, as `--json` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

LISTED = 100  # entries that are kept of a list, whose length is told in full
# Words from which on two people hardly say the same by chance.
LONG_TEXT = 5

Role = Literal["train", "dev", "test"]
Level = Literal["problem", "hint"]


@dataclass(frozen=True)
class Listed:
    """How many utterances or speakers, and the names of the first ones."""

    count: int
    names: list[str]

    @classmethod
    def of(cls, names: Sequence[str]) -> Listed:
        return cls(len(names), list(names[:LISTED]))


@dataclass(frozen=True)
class Spread:
    """How a quantity is distributed over utterances."""

    min: float
    p5: float
    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: pd.Series) -> Spread:
        return cls(*(float(x) for x in np.percentile(values, [0, 5, 50, 95, 100])))


@dataclass(frozen=True)
class Histogram:
    """Utterances in each bin; those beyond an end are counted in the bin at that end."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Suspect:
    """An utterance that has too many or too few words for its length."""

    id: str
    seconds: float
    words_per_minute: float
    text: str


@dataclass(frozen=True)
class SpeechRate:
    """Words per minute of utterances with words.

    Far outside, audio and transcript may not belong together.
    """

    spread: Spread
    histogram: Histogram
    fast: int
    slow: int
    suspects: list[Suspect]
    """The fast and the slow ones, the furthest first."""


@dataclass(frozen=True)
class OutOfVocabulary:
    """Words that no training transcript has; the language model's text may have them."""

    words: int
    share: float
    different: int
    examples: dict[str, int]


@dataclass(frozen=True)
class Outside:
    """Characters that the tokenizer's alphabet lacks, and the utterances that have one."""

    characters: dict[str, int]
    utterances: Listed


@dataclass(frozen=True)
class Reason:
    """Why utterances were rejected."""

    reason: str
    utterances: Listed


@dataclass(frozen=True)
class Part:
    """What one part holds; copies at other speeds are not counted."""

    name: str
    role: Role
    directory: str
    utterances: int
    hours: float
    speakers: int
    seconds: Spread
    lengths: Histogram
    words: int
    vocabulary: int
    texts: int
    """Transcripts that differ from one another."""
    empty: Listed
    """Utterances of whose transcript normalisation leaves nothing."""
    rate: SpeechRate
    oov: OutOfVocabulary | None
    """Null for training parts, and while one of them is missing."""
    characters: dict[str, int]
    """The most frequent first, spaces left out."""
    outside: Outside | None
    """Null while a training part that decides the alphabet is missing."""
    digests: int
    """Utterances whose audio has a digest; that of others cannot be compared."""
    sample_rates: dict[str, int] | None
    channels: dict[str, int] | None
    rejected: int
    reasons: list[Reason]


@dataclass(frozen=True)
class SameAudio:
    """Utterances with the very samples of another one."""

    utterances: int
    other_text: int
    """How many of them have another transcript than the other one."""
    pairs: list[list[str]]


@dataclass(frozen=True)
class RepeatedText:
    """A transcript of one split that is one of another, too."""

    text: str
    words: int
    utterances: int


@dataclass(frozen=True)
class SameText:
    """Utterances whose transcript is one of another split, too."""

    utterances: int
    share: float
    share_of_words: float
    long: int
    """How many of them have `LONG_TEXT` words or more."""
    examples: list[RepeatedText]
    """The longest first."""


@dataclass(frozen=True)
class Overlap:
    """What a split has of another one; training parts are one split."""

    of: str
    split: str
    speakers: Listed
    audio: SameAudio | None
    """Null where digests of the audio were not recorded."""
    texts: SameText


@dataclass(frozen=True)
class Repeated:
    """Audio that a split has more than once."""

    split: str
    audio: SameAudio | None


@dataclass(frozen=True)
class Finding:
    """What a reader should know before all else."""

    level: Level
    kind: str
    where: str
    """A part, `train` for all training parts, or two of them."""
    text: str


@dataclass(frozen=True)
class Missing:
    """A part whose features are not there yet."""

    part: str
    role: Role
    directory: str


@dataclass(frozen=True)
class Corpus:
    """Parts that some experiments read in the same way."""

    name: str
    experiments: list[str]
    alphabet: str | None
    missing: list[Missing]
    findings: list[Finding]
    parts: list[Part]
    repeated: list[Repeated]
    overlaps: list[Overlap]
    """With training only while no part of it is missing."""

    @property
    def trained(self) -> bool:
        """Whether all of the training parts are there, so that others are compared with them."""
        return not any(missing.role == "train" for missing in self.missing)


@dataclass(frozen=True)
class DataReport:
    """All that is told; `make` is the command that makes what is missing."""

    scale: str
    make: str | None
    corpora: list[Corpus]
