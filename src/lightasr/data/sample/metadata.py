"""The tables beside the audio, in LibriSpeech's own format; every archive carries the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lightasr.data.sample.plan import Speaker, planned_seconds

_README = """\
The built-in corpus of lightasr: calls to the customer service of a city transport company, drawn
from a grammar and spoken by the espeak-ng synthesiser. No person speaks in it and no such city
exists.

The layout is LibriSpeech's: PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac, and the transcripts of
a chapter in SPEAKER-CHAPTER.trans.txt. A chapter is one dialogue; only the caller is heard.

  train-clean-100   training; the name is LibriSpeech's, the size is not
  dev-clean         voices and sentences that occur in no other part
  test-clean        likewise
  test-other        likewise, in reverberant rooms with babble, pink noise or hum at 15 to 30 dB

SPEAKERS.TXT, CHAPTERS.TXT and DIALOGUES.TXT describe all parts, whichever archive they come in.
Minutes are planned ones: settled before the speech is made, and the recordings come close to them.
"""

_SPEAKERS = """\
; All speakers of the corpus, a line each, with | between the fields:
;
; ID: number of the speaker
; SEX: 'F' for female, 'M' for male
; SUBSET: the part the speaker's recordings are in
; MINUTES: planned minutes of speech
; NAME: the synthesiser's accent and variant, pitch, pitch range, words per minute
;
"""

_CHAPTERS = """\
; All chapters of the corpus, a line each, with | between the fields:
;
; ID: number of the chapter
; READER: number of the speaker
; MINUTES: planned minutes of speech
; SUBSET: the part the chapter is in
; CH. TITLE: the theme of the dialogue
;
"""

_DIALOGUES = """\
; All dialogues of the corpus, a line each, with | between the fields:
;
; ID: number of the dialogue, which is that of its chapter
; SPEAKER: number of the caller
; SUBSET: the part the dialogue is in
; THEME: what the call is about
; SENTENCES: number of the caller's utterances
;
"""


def metadata_files(corpus: Mapping[str, Iterable[Speaker]]) -> dict[str, str]:
    """Names and contents of the tables, from the plan of every part."""
    speakers = [_row("ID", "SEX", "SUBSET", "MINUTES", "NAME")]
    chapters = [_row("ID", "READER", "MINUTES", "SUBSET", "CH. TITLE")]
    dialogues = [_row("ID", "SPEAKER", "SUBSET", "THEME", "SENTENCES")]
    for part, members in corpus.items():
        for speaker in members:
            number, voice, total = str(speaker.number), speaker.voice, 0.0
            for call in speaker.calls:
                chapter, dialogue = str(call.chapter), call.dialogue
                minutes = sum(planned_seconds(text, voice) for text in dialogue.sentences) / 60
                total += minutes
                chapters.append(_row(chapter, number, f"{minutes:.2f}", part, dialogue.theme))
                sentences = str(len(dialogue.sentences))
                dialogues.append(_row(chapter, number, part, dialogue.theme, sentences))
            name = (
                f"{voice.espeak_name}, pitch {voice.pitch}, range {voice.pitch_range}, "
                f"{voice.words_per_minute} wpm"
            )
            speakers.append(_row(number, voice.sex, part, f"{total:.2f}", name))
    return {
        "README.TXT": _README,
        "SPEAKERS.TXT": _SPEAKERS + _table(speakers),
        "CHAPTERS.TXT": _CHAPTERS + _table(chapters),
        "DIALOGUES.TXT": _DIALOGUES + _table(dialogues),
    }


def _row(*cells: str) -> tuple[str, ...]:
    return cells


def _table(rows: list[tuple[str, ...]]) -> str:
    """Aligned columns with | between them; the first row is the commented header."""
    header = (f";{rows[0][0]}", *rows[0][1:])
    rows = [header, *rows[1:]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines) + "\n"
