"""Error rates of a system as text for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from lightasr.score.bootstrap import Interval
from lightasr.score.detail import CONFUSION_TITLES, Detail, Group

SHOWN_SPEAKERS = 10
SHOWN_CONFUSIONS = 8
FIRST_COLUMN = 24
CONFUSION_WIDTH = 26
NO_INTERVAL = (
    "No interval: it needs two or more speakers. Who speaks is in the files of\n"
    "LibriSpeech and NIST and in a TSV's column `speaker`; else give --speakers."
)


def detail_text(found: Detail, title: str) -> str:
    """The summary, then rates by length and by speaker, then the most frequent confusions."""
    sections = [f"{title}\n{_summary(found)}", _groups(found.length_unit, found.by_length)]
    if found.by_speaker:
        sections.append(_speakers(found.by_speaker))
    if any(found.confusions.values()):
        sections.append(_confusions(found))
    return "\n\n".join(sections)


def points(interval: Interval) -> str:
    """An interval in percent."""
    return f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def _summary(found: Detail) -> str:
    summary = found.summary
    utterances, words, wer, cer = (
        summary[name] or 0 for name in ("utterances", "words", "wer", "cer")
    )
    who = f" of {summary['speakers']} speakers" if found.by_speaker else ""
    lines = [
        f"{utterances:,} utterances{who}, {words:,} words; errors in "
        f"{100 * found.wrong_utterances / utterances:.1f} % of utterances",
        f"WER {100 * wer:.2f} %, CER {100 * cer:.2f} %; "
        f"{summary['substitutions']:,} substituted, {summary['insertions']:,} inserted, "
        f"{summary['deletions']:,} deleted",
    ]
    interval = found.interval
    lines.append(f"95 % interval over speakers: {points(interval)}" if interval else NO_INTERVAL)
    return "\n".join(lines)


def _groups(heading: str, groups: Sequence[Group]) -> str:
    header = f"{heading:<{FIRST_COLUMN}}{'utterances':>11}{'words':>9}{'WER %':>8}"
    header += f"{'subst.':>9}{'insert.':>9}{'delet.':>9}"
    return "\n".join([header, *map(_group, groups)])


def _group(group: Group) -> str:
    edits = (group.substitutions, group.insertions, group.deletions)
    shown = _cut(group.name, FIRST_COLUMN - 1)
    line = f"{shown:<{FIRST_COLUMN}}{group.utterances:>11,}{group.words:>9,}{100 * group.wer:>8.2f}"
    return line + "".join(f"{count:>9,}" for count in edits)


def _speakers(groups: Sequence[Group]) -> str:
    text = _groups("speaker", groups[:SHOWN_SPEAKERS])
    if len(groups) > SHOWN_SPEAKERS:
        text += f"\n... and {len(groups) - SHOWN_SPEAKERS} with a lower WER; --json lists all"
    return text


def _confusions(found: Detail) -> str:
    """The kinds of edit side by side."""
    columns = [
        [title, *(_pair(*pair, count) for pair, count in pairs[:SHOWN_CONFUSIONS])]
        for kind, title in CONFUSION_TITLES.items()
        if (pairs := found.confusions[kind])
    ]
    rows = zip_longest(*columns, fillvalue="")
    return "\n".join("".join(f"{cell:<{CONFUSION_WIDTH}}" for cell in row).rstrip() for row in rows)


def _pair(reference: str, hypothesis: str, count: int) -> str:
    words = f"{reference} > {hypothesis}" if reference and hypothesis else reference or hypothesis
    return f"{count:>5,} {_cut(words, CONFUSION_WIDTH - 7)}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]}.."
