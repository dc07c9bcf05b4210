"""The tables of the data report, the same on a terminal and on its page."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from lightasr.data.report.content import LONG_TEXT, Corpus, SameAudio
from lightasr.data.report.findings import percent
from lightasr.data.report.numbers import DOUBT_SECONDS, DOUBT_WORDS, FAR


@dataclass(frozen=True)
class Grid:
    """A table whose first columns are names and whose other columns are numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    names: int = 1


def sizes(corpus: Corpus) -> Grid:
    """How much speech there is, and how long its utterances are."""
    header = ["part", "hours", "utterances", "speakers", "min s", "median", "95 %", "max s"]
    rows = []
    for part in corpus.parts:
        spread = part.seconds
        lengths = [spread.min, spread.median, spread.p95, spread.max]
        counts = [f"{part.hours:,.2f}", f"{part.utterances:,}", f"{part.speakers:,}"]
        rows.append([part.name, *counts, *(f"{seconds:.1f}" for seconds in lengths)])
    return Grid("Size", header, rows)


def words(corpus: Corpus) -> Grid:
    """How much text there is, and how much of it training does not have."""
    header = ["part", "words", "vocabulary", "OOV", "OOV words", "transcripts", "different"]
    rows = []
    for part in corpus.parts:
        counts = [f"{part.words:,}", f"{part.vocabulary:,}"]
        oov = [percent(part.oov.share), f"{part.oov.different:,}"] if part.oov else ["", ""]
        rows.append([part.name, *counts, *oov, f"{part.utterances:,}", f"{part.texts:,}"])
    note = "OOV: words that no training transcript has, as a share of all that is said."
    return Grid("Words", header, rows, note)


def rates(corpus: Corpus) -> Grid:
    """How fast people speak, and how many cannot have said what is written."""
    header = ["part", "min", "5 %", "median", "95 %", "max", "too many", "too few"]
    rows = []
    for part in corpus.parts:
        spread, far = part.rate.spread, (part.rate.fast, part.rate.slow)
        values = [spread.min, spread.p5, spread.median, spread.p95, spread.max]
        rows.append([part.name, *(f"{v:.0f}" for v in values), *(f"{count:,}" for count in far)])
    note = (
        f"Too many, too few: utterances {FAR:g} times faster or slower than the median, even with "
        f"{DOUBT_WORDS} word and {DOUBT_SECONDS:g} s of silence more or less; they may have the "
        "transcript of other audio."
    )
    return Grid("Words per minute", header, rows, note)


def in_common(corpus: Corpus) -> Grid:
    """What splits have in common; training parts are one split."""
    header = ["part", "with", "speakers", "audio", "texts", "of all", "of words", "long"]
    rows = []
    for overlap in corpus.overlaps:
        texts = overlap.texts
        shares = [percent(texts.share), percent(texts.share_of_words)]
        same = [f"{overlap.speakers.count:,}", same_audio(overlap.audio), f"{texts.utterances:,}"]
        rows.append([overlap.split, overlap.of, *same, *shares, f"{texts.long:,}"])
    note = (
        "Audio: utterances with the very same samples (?: not recorded); a copy that was encoded "
        "anew is not found. "
        "Texts: utterances whose whole transcript is there, too. Short ones repeat by chance: "
        f"'of words' weighs them, 'long' counts those of {LONG_TEXT} words or more."
    )
    return Grid("In common", header, rows, note, names=2)


def same_audio(audio: SameAudio | None) -> str:
    """How many utterances, or that this is not known."""
    return f"{audio.utterances:,}" if audio else "?"


def nothing_in_common(corpus: Corpus) -> Iterator[str]:
    """The good news, a line each."""
    overlaps = corpus.overlaps
    if overlaps and not any(overlap.speakers.count for overlap in overlaps):
        yield "No duplicates: no speaker is in two splits."
    audio = [overlap.audio for overlap in overlaps if overlap.audio]
    if overlaps and len(audio) == len(overlaps) and not any(same.utterances for same in audio):
        yield "No duplicates: no audio is in two splits."
    if overlaps and not any(overlap.texts.long for overlap in overlaps):
        yield f"No duplicates: no transcript of {LONG_TEXT} words or more is in two splits."
    once = [repeated.split for repeated in corpus.repeated if _is_none(repeated.audio)]
    if once:
        yield f"No duplicates: no audio is there twice within {', '.join(once)}."
    unknown = [repeated.split for repeated in corpus.repeated if repeated.audio is None]
    if unknown:
        yield f"Not known whether audio is there twice: {', '.join(unknown)}."


def _is_none(audio: SameAudio | None) -> bool:
    return audio is not None and not audio.utterances


def recordings(corpus: Corpus) -> Grid:
    """What the audio was before it was read, and how much of it was not."""
    rows = [
        [
            part.name,
            _counts(part.sample_rates, " Hz"),
            _counts(part.channels, ""),
            f"{part.rejected:,}",
        ]
        for part in corpus.parts
    ]
    header = ["part", "sample rate", "channels", "rejected"]
    return Grid("Recordings", header, rows, names=3)


def _counts(counts: dict[str, int] | None, unit: str) -> str:
    """`16000 Hz`, or `8000 Hz (3), 16000 Hz (101)` where there are several."""
    if counts is None:
        return "not recorded"
    if len(counts) == 1:
        return f"{next(iter(counts))}{unit}"
    ordered = sorted(counts.items(), key=lambda item: int(item[0]))
    return ", ".join(f"{value}{unit} ({count:,})" for value, count in ordered)


def shown_character(char: str) -> str:
    """The character, or its number where it cannot be seen by itself."""
    return char if unicodedata.category(char)[0] in "LNPS" else f"U+{ord(char):04X}"
