"""Holds transcripts against an alphabet: which characters are outside, where, and what to do."""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightasr.errors import LightasrError
from lightasr.text.normalize import Normalizer, outside_alphabet

if TYPE_CHECKING:
    from lightasr import schema

PIECE_BOUNDARY = "\u2581"  # how sentencepiece writes a space: it can be no character of a text
TOLD = 10


@dataclass(frozen=True)
class Outside:
    """An utterance with characters that the alphabet lacks."""

    id: str
    characters: list[str]
    text: str


def alphabet_of(given: str | None, texts: Iterable[str]) -> str:
    """The characters of `tokenizer.alphabet`; those of the texts where it is null."""
    if given is None:
        return "".join(sorted(set[str]().union(*texts) - {" ", PIECE_BOUNDARY}))
    characters = unicodedata.normalize("NFKC", given).replace(" ", "")
    for char in characters:
        if char == PIECE_BOUNDARY or unicodedata.category(char)[0] in "CZ":
            raise LightasrError(f"tokenizer.alphabet: {named(char)} cannot be a symbol")
    return "".join(dict.fromkeys(characters))


def sort_out(
    transcripts: Iterable[tuple[str, str]], alphabet: str
) -> tuple[list[str], list[Outside]]:
    """The texts that an alphabet and spaces can write, and the utterances that they cannot."""
    allowed = {*alphabet, " "}
    inside, outside = [], []
    for name, text in transcripts:
        if characters := outside_alphabet(text, allowed):
            outside.append(Outside(name, sorted(characters), text))
        else:
            inside.append(text)
    return inside, outside


def write_outside(path: Path, outside: Iterable[Outside]) -> None:
    """A line an utterance: its id, the characters in question, its text."""
    rows = ([found.id, name_all(found.characters), found.text] for found in outside)
    write_table(path, ["id", "characters", "text"], rows)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Tab-separated; quotes are plain characters."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(
            stream, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
        )
        writer.writerow(header)
        writer.writerows(rows)


def named(char: str) -> str:
    """A character one may not see, or mistake for another, by its Unicode name."""
    shown = char if char.isprintable() and not unicodedata.combining(char) else _code(char)
    return f"{shown} ({unicodedata.name(char, _code(char))})"


def name_all(characters: Iterable[str]) -> str:
    return ", ".join(named(char) for char in characters)


def _code(char: str) -> str:
    return f"U+{ord(char):04X}"


def too_many(
    outside: Sequence[Outside], total: int, config: schema.TokenizerSlice, listed: Path
) -> LightasrError:
    """What to say when more utterances are outside than `tokenizer.max_outside` allows."""
    counts = Counter(char for found in outside for char in found.characters)
    told = ", ".join(f"{named(char)} in {n}" for char, n in counts.most_common(TOLD))
    more = f", and {len(counts) - TOLD} others" if len(counts) > TOLD else ""
    ids = ", ".join(found.id for found in outside[:TOLD])
    return LightasrError(
        f"{len(outside)} of {total} training utterances ({len(outside) / total:.1%}) have "
        f"characters outside the alphabet; tokenizer.max_outside allows {config.max_outside:.1%}\n"
        f"characters, and how many utterances have them: {told}{more}\n"
        f"utterances: {ids}{', ...' if len(outside) > TOLD else ''}; all of them: {listed}\n"
        f"what helps: {'; '.join(_remedies(counts, config))}"
    )


def _remedies(characters: Counter[str], config: schema.TokenizerSlice) -> list[str]:
    text, alphabet = config.text, config.alphabet or ""
    written = {char: Normalizer(text)(char) for char in alphabet}
    replaced = [f"{a} as {b}" for a, b in written.items() if a != b and b in characters]
    bare = Normalizer(text.model_copy(update={"accents": "drop"}))
    remedies = []
    if text.numbers == "keep" and any(char.isdecimal() for char in characters):
        remedies.append("`text.numbers: spell` reads digits out")
    if any(bare(char) != char and set(bare(char)) <= {*alphabet} for char in characters):
        remedies.append("`text.accents: drop` takes accents off")
    if replaced:
        remedies.append(
            f"`text` writes {', '.join(replaced[:3])}: let `tokenizer.alphabet` hold what it writes"
        )
    return [*remedies, "add what belongs there to `tokenizer.alphabet`, or make it null: all of it"]
