"""What lies behind an error rate: by speaker, by length, which words, and the worst utterances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from lightasr.score.bootstrap import Interval
from lightasr.score.transcripts import NO_SPEAKER
from lightasr.score.wer import Edits, confusions, summarize, utterance_errors, word_edits

BOOTSTRAP_SAMPLES = 1000
BOOTSTRAP_SEED = 1
TOP_CONFUSIONS = 12
SECONDS = (0, 2, 3, 5, 10, 15, 20)
WORDS = (1, 6, 11, 21, 31)
EDITS = ("substitutions", "insertions", "deletions")
CONFUSION_TITLES = {"substitute": "Substituted", "delete": "Deleted", "insert": "Inserted"}
Confusions = dict[str, list[tuple[tuple[str, str], int]]]


@dataclass(frozen=True)
class Group:
    """The errors of some of the utterances."""

    name: str
    utterances: int
    words: int
    substitutions: int
    insertions: int
    deletions: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.insertions + self.deletions

    @property
    def wer(self) -> float:
        """As a fraction."""
        return self.errors / self.words


@dataclass(frozen=True)
class Utterance:
    """An utterance in which a system erred, with its alignment."""

    id: str
    speaker: str
    errors: int
    words: int
    alignment: list[Edits]


@dataclass(frozen=True)
class Detail:
    """All that is counted of one system on one set of utterances."""

    summary: dict[str, float | int | None]
    wrong_utterances: int
    by_speaker: list[Group]
    """Worst first; empty where speakers are not known."""
    by_length: list[Group]
    length_unit: str
    confusions: Confusions

    @property
    def interval(self) -> Interval | None:
        """Of the word error rate; None with one speaker, or where speakers are not known."""
        low, high = self.summary["wer_low"], self.summary["wer_high"]
        return None if low is None or high is None else Interval(low, high)


def detail(decoded: pd.DataFrame) -> Detail:
    """Count the errors of a table of id, speaker, reference, hypothesis and perhaps seconds."""
    errors = utterance_errors(decoded)
    by_length, unit = lengths(decoded, errors)
    return Detail(
        summary=summarize(errors, BOOTSTRAP_SAMPLES, BOOTSTRAP_SEED),
        wrong_utterances=int((errors[list(EDITS)].sum(axis=1) > 0).sum()),
        by_speaker=speakers(errors),
        by_length=by_length,
        length_unit=unit,
        confusions=top_confusions(decoded),
    )


def speakers(errors: pd.DataFrame) -> list[Group]:
    """The errors of each speaker, the highest rate first; none where nobody is named."""
    if (errors["speaker"] == NO_SPEAKER).all():
        return []
    return sorted(_groups(errors, errors["speaker"]), key=lambda group: (-group.wer, group.name))


def lengths(decoded: pd.DataFrame, errors: pd.DataFrame) -> tuple[list[Group], str]:
    """The errors of short and long utterances, by seconds where known, else by words."""
    unit, edges = ("seconds", SECONDS) if "seconds" in decoded else ("words", WORDS)
    values = decoded["seconds"] if unit == "seconds" else errors["words"]
    names = [_bin_name(edges, index, unit) for index in range(len(edges))]
    bins = pd.cut(values, [*edges, float("inf")], right=False, labels=names)
    groups = {group.name: group for group in _groups(errors, bins.astype(str))}
    return [groups[name] for name in names if name in groups], unit


def top_confusions(decoded: pd.DataFrame) -> Confusions:
    """The most frequent pairs of words, by kind of edit; of two as frequent, by the alphabet."""
    return {
        kind: sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP_CONFUSIONS]
        for kind, counts in confusions(decoded).items()
    }


def worst_utterances(decoded: pd.DataFrame, limit: int) -> list[Utterance]:
    """The utterances with most word errors; of two with as many, the shorter."""
    counted = utterance_errors(decoded)
    counted["errors"] = counted[list(EDITS)].sum(axis=1)
    order = counted.sort_values(["errors", "words", "id"], ascending=[False, True, True])
    worst = order[order["errors"] > 0].head(limit)
    texts = decoded.loc[worst.index]
    alignments = word_edits(list(texts["reference"]), list(texts["hypothesis"]))
    return [
        Utterance(row["id"], row["speaker"], row["errors"], row["words"], alignment)
        for row, alignment in zip(worst.to_dict("records"), alignments, strict=True)
    ]


def detail_json(found: Detail) -> dict[str, Any]:
    """All numbers for programs; rates are fractions."""
    return {
        **found.summary,
        "wrong_utterances": found.wrong_utterances,
        "by_speaker": [_group_json(group) for group in found.by_speaker],
        "by_length": {
            "unit": found.length_unit,
            "bins": [_group_json(group) for group in found.by_length],
        },
        "confusions": {
            kind: [
                {"reference": reference, "hypothesis": hypothesis, "count": count}
                for (reference, hypothesis), count in pairs
            ]
            for kind, pairs in found.confusions.items()
        },
    }


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "utterances": group.utterances,
        "words": group.words,
        **{edit: getattr(group, edit) for edit in EDITS},
        "wer": group.wer,
    }


def _groups(errors: pd.DataFrame, names: pd.Series) -> list[Group]:
    table = errors.groupby(names)[["words", *EDITS]].sum()
    sizes = errors.groupby(names).size()
    return [
        Group(str(name), int(sizes[name]), *(int(count) for count in row))
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]


def _bin_name(edges: tuple[int, ...], index: int, unit: str) -> str:
    """`5 to 10` seconds, `6 to 10` words, and the last without an end."""
    if index == len(edges) - 1:
        return f"{edges[index]} or more"
    return f"{edges[index]} to {edges[index + 1] - (unit == 'words')}"
