"""What the data report tells first: problems that make results worthless, and hints at others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightasr import schema
from lightasr.data.report.content import (
    Corpus,
    Finding,
    Level,
    Listed,
    Overlap,
    Part,
    Repeated,
    SameAudio,
)

NAMED = 5
OWN_SPEAKERS = 10  # utterances from which on a speaker for each of them is no chance


def findings(corpus: Corpus, config: schema.Experiment) -> Iterator[Finding]:
    """Problems first, each kind in the order of parts."""
    found = [
        *(finding for overlap in corpus.overlaps for finding in _overlapping(overlap, config)),
        *(finding for repeated in corpus.repeated for finding in _repeating(repeated)),
        *_characters(corpus, config.tokenizer),
        *(
            finding
            for part in corpus.parts
            for finding in _of_part(part, config.features.sample_rate)
        ),
    ]
    if without := [part for part in corpus.parts if part.digests < part.utterances]:
        found.append(_undigested(without))
    yield from sorted(found, key=lambda finding: finding.level != "problem")


def named(names: Sequence[str], count: int, shown: int = NAMED) -> str:
    """The first names of a list, and how many there are besides."""
    listed = ", ".join(names[:shown])
    return f"{listed} and {count - shown:,} more" if count > shown else listed


def counted(count: int, what: str) -> str:
    """`1 utterance`, `2 utterances`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def percent(share: float) -> str:
    """Never 0 % of what there is."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


def _overlapping(overlap: Overlap, config: schema.Experiment) -> Iterator[Finding]:
    where = f"{overlap.split} and {overlap.of}"
    trained = overlap.of != config.corpus.dev
    if overlap.audio and overlap.audio.utterances:
        count = overlap.audio.utterances
        told = f"the very same audio in {counted(count, 'utterance')} of {overlap.split}"
        yield Finding("problem", "same-audio", where, told + _pairs(overlap.audio))
    if overlap.speakers.count:
        level: Level = "problem" if trained else "hint"
        told = f"{counted(overlap.speakers.count, 'speaker')} in both: {_names(overlap.speakers)}"
        yield Finding(level, "same-speaker", where, told)
    texts = overlap.texts
    if trained and texts.long:
        told = (
            f"the same transcript in {counted(texts.utterances, 'utterance')} of {overlap.split} "
            f"({percent(texts.share)}; {percent(texts.share_of_words)} of its words); "
            f"{texts.long:,} of them too long to repeat by chance"
        )
        yield Finding("hint", "same-text", where, told)


def _repeating(repeated: Repeated) -> Iterator[Finding]:
    if repeated.audio and repeated.audio.utterances:
        told = f"{counted(repeated.audio.utterances, 'utterance')} with the audio of another one"
        yield Finding("problem", "repeated-audio", repeated.split, told + _pairs(repeated.audio))


def _pairs(audio: SameAudio) -> str:
    other = f" ({audio.other_text:,} with another transcript)" if audio.other_text else ""
    pairs = [" = ".join(dict.fromkeys(pair)) for pair in audio.pairs]
    return f"{other}: {named(pairs, audio.utterances)}"


def _of_part(part: Part, sample_rate: int) -> Iterator[Finding]:
    if part.rejected:
        share = percent(part.rejected / (part.rejected + part.utterances))
        reasons = "; ".join(
            f"{reason.utterances.count:,} {reason.reason}" for reason in part.reasons
        )
        text = f"{counted(part.rejected, 'utterance')} rejected ({share}): {reasons}"
        yield Finding("hint", "rejected", part.name, text)
    if part.empty.count:
        text = f"{counted(part.empty.count, 'utterance')} without a word: {_names(part.empty)}"
        yield Finding("hint", "no-words", part.name, text)
    if part.rate.suspects:
        kinds = [(part.rate.fast, "too many"), (part.rate.slow, "too few")]
        told = " and ".join(f"{count:,} with {what}" for count, what in kinds if count)
        ids = named([suspect.id for suspect in part.rate.suspects], part.rate.fast + part.rate.slow)
        text = f"{told} words for the length; is the transcript of this audio? {ids}"
        yield Finding("hint", "speech-rate", part.name, text)
    yield from _recording(part, sample_rate)


def _characters(corpus: Corpus, tokenizer: schema.Tokenizer) -> Iterator[Finding]:
    """The tokenizer counts the utterances of all training parts together."""
    strange = [(part, part.outside) for part in corpus.parts if part.outside]
    left_out = sum(out.utterances.count for part, out in strange if part.role == "train")
    training = sum(part.utterances for part, _ in strange if part.role == "train")
    for part, outside in strange:
        if not outside.characters:
            continue
        level: Level = "hint"
        if part.role != "train":
            then = "no model can write them"
        elif left_out > tokenizer.max_outside * training:
            level = "problem"
            then = f"more than tokenizer.max_outside, {percent(tokenizer.max_outside)}, allows"
        else:
            then = "left out of training"
        shown = named([repr(char) for char in outside.characters], len(outside.characters))
        utterances = counted(outside.utterances.count, "utterance")
        told = f"{utterances} with characters outside the alphabet: {shown}; {then}: "
        yield Finding(level, "characters", part.name, told + _names(outside.utterances))


def _recording(part: Part, sample_rate: int) -> Iterator[Finding]:
    """What a recogniser cannot hear, or a reader cannot know, of the recordings."""
    low = [int(rate) for rate in part.sample_rates or {} if int(rate) < sample_rate]
    for rate in sorted(low):
        count = (part.sample_rates or {})[str(rate)]
        told = (
            f"{counted(count, 'utterance')} recorded at {rate} Hz and read at {sample_rate} Hz: "
            f"nothing above {rate // 2} Hz is in there"
        )
        yield Finding("hint", "sample-rate", part.name, told)
    if part.speakers == part.utterances >= OWN_SPEAKERS:
        text = "each utterance has a speaker of its own: a speaker in two parts would not show"
        yield Finding("hint", "speakers", part.name, text)


def _undigested(parts: Sequence[Part]) -> Finding:
    utterances = sum(part.utterances - part.digests for part in parts)
    text = (
        f"audio of {counted(utterances, 'utterance')} cannot be compared: these features were made "
        "before digests were recorded; delete them to have them made again"
    )
    return Finding("hint", "digests", ", ".join(part.name for part in parts), text)


def _names(listed: Listed) -> str:
    return named(listed.names, listed.count)
