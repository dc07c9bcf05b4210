"""The units that a neural language model knows, and sentences as their numbers."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightasr.errors import LightasrError
from lightasr.lm.arpa import UNKNOWN

SENTENCE = "<s>"
"""The start of a sentence, and its end."""
START, OTHER = 0, 1
UNITS = "units.txt"
BLOCK = 1 << 20

Numbers = NDArray[np.int32]


class Vocabulary:
    """Numbers units; what it does not know is `<unk>`."""

    def __init__(self, units: Sequence[str]) -> None:
        self.units = [SENTENCE, UNKNOWN, *units]
        self._numbers = {unit: number for number, unit in enumerate(self.units) if number != START}

    def __len__(self) -> int:
        return len(self.units)

    def number(self, unit: str) -> int:
        return self._numbers.get(unit, OTHER)

    def encode(self, units: Iterable[str]) -> list[int]:
        return [self.number(unit) for unit in units]

    def save(self, folder: Path) -> None:
        """Write `units.txt`, a unit a line."""
        text = "".join(f"{unit}\n" for unit in self.units)
        (folder / UNITS).write_text(text, encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """What `save` wrote."""
        path = folder / UNITS
        try:
            # Not splitlines(): some characters of an alphabet count as ends of lines for it.
            *units, rest = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise LightasrError(f"{path}: not readable: {error}") from None
        if rest or units[:2] != [SENTENCE, UNKNOWN]:
            raise LightasrError(f"{path}: not the units of a language model, or cut short")
        return cls(units[2:])


@dataclass(frozen=True)
class Sentences:
    """Many sentences as numbers of units, one after the other in memory."""

    numbers: Numbers
    ends: NDArray[np.int64]
    """Where each sentence ends, after a 0."""

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, sentence: int) -> Numbers:
        return self.numbers[self.ends[sentence] : self.ends[sentence + 1]]

    def length(self, sentence: int) -> int:
        """Units of a sentence, without its end."""
        return int(self.ends[sentence + 1] - self.ends[sentence])


class Collector:
    """Gathers sentences whose vocabulary is known at the end only, in little memory."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._numbers, self._ends = array("i"), array("q", [0])

    def add(self, units: Iterable[str]) -> None:
        names = self._names
        self._numbers.extend(names.setdefault(unit, len(names)) for unit in units)
        self._ends.append(len(self._numbers))

    def frequent(self, most: int, least_count: int) -> list[str]:
        """The most frequent units of those that are frequent enough, the first of equals first."""
        names = list(self._names)
        counts = np.bincount(np.frombuffer(self._numbers, np.int32), minlength=len(names))
        order = np.argsort(-counts, kind="stable")[:most]
        return [names[i] for i in order if counts[i] >= least_count]

    def sentences(self, vocabulary: Vocabulary) -> Sentences:
        """All that was added, by the numbers of a vocabulary; the collector is used up."""
        known = np.array(vocabulary.encode(self._names), np.int32)
        numbers = np.frombuffer(self._numbers, np.int32)
        for first in range(0, len(numbers), BLOCK):  # in place: text may take half the memory
            block = numbers[first : first + BLOCK]
            block[:] = known[block]
        return Sentences(numbers, np.frombuffer(self._ends, np.int64))
