"""Reads what the data report counts: a row an utterance, and the counts over a part's texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lightasr import schema
from lightasr.data.cuts import read_cuts
from lightasr.errors import LightasrError
from lightasr.jobs import Job
from lightasr.progress import Bar
from lightasr.text.normalize import Normalizer


@dataclass(frozen=True)
class Table:
    """A part, or several as one: each utterance once, whatever speeds it was copied at."""

    rows: pd.DataFrame
    """Columns id, speaker, digest, text, seconds, words."""
    vocabulary: Counter[str]

    @classmethod
    def joined(cls, tables: Sequence[Table]) -> Table:
        if len(tables) == 1:
            return tables[0]
        rows = pd.concat([table.rows for table in tables], ignore_index=True)
        vocabulary = Counter[str]()
        for table in tables:
            vocabulary.update(table.vocabulary)
        return cls(rows, vocabulary)

    @cached_property
    def characters(self) -> Counter[str]:
        """Spaces left out. A word is spelt once, however often it is said."""
        characters = Counter[str]()
        for word, count in self.vocabulary.items():
            for char in word:
                characters[char] += count
        return characters


@dataclass
class Tables:
    """Reads each part once for each way of writing its text."""

    project: Path
    bar: Bar
    read: dict[tuple[str, schema.Text], Table] = field(default_factory=dict)

    def of(self, job: Job, text: schema.Text) -> Table:
        if (job.dir, text) not in self.read:
            self.read[job.dir, text] = read_table(self.project / job.dir, text, self.bar)
        return self.read[job.dir, text]


def read_table(directory: Path, text: schema.Text, bar: Bar) -> Table:
    """All utterances of a directory of features, their text as models are trained on it."""
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "speaker", "digest", "text")}
    seconds, words = [], []
    normalize = Normalizer(text)
    vocabulary = Counter[str]()
    for where, cut in read_cuts(directory):
        utterance, speaker, duration, spoken, digest = _fields(cut, where)
        written = normalize(spoken)
        said = written.split()
        vocabulary.update(said)
        for name, value in zip(columns, (utterance, speaker, digest, written), strict=True):
            columns[name].append(value)
        seconds.append(duration)
        words.append(len(said))
        bar.update()
    if not seconds:
        raise LightasrError(f"{directory}: holds no utterance; delete it to have it made again")
    rows = pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in columns.items()})
    return Table(rows.assign(seconds=np.array(seconds), words=np.array(words)), vocabulary)


def _fields(cut: dict[str, Any], where: str) -> tuple[str, str, float, str, str | None]:
    """Id, speaker, seconds, text and the digest of the audio, where that was recorded."""
    try:
        (supervision,) = cut["supervisions"]
        name, speaker, text = str(cut["id"]), str(supervision["speaker"]), str(supervision["text"])
        seconds, digest = float(cut["duration"]), (cut.get("custom") or {}).get("digest")
    except (ValueError, KeyError, TypeError) as error:
        raise LightasrError(
            f"{where}: expected a cut with a duration and one supervision with text and speaker "
            f"({error!r})"
        ) from None
    if seconds <= 0:
        raise LightasrError(f"{where}: '{name}' lasts {seconds} s")
    return name, speaker, seconds, text, digest
