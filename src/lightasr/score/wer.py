"""Word and character errors of decoded utterances, by minimum edit distance, and stage `score`.

Rates are fractions here and in `scores.json`; only tables and figures turn them into percent.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import jiwer
import pandas as pd

from lightasr.errors import LightasrError
from lightasr.score.bootstrap import CER, WER, name_some, sampled_rate

DECODED_COLUMNS = ("id", "speaker", "seconds", "reference", "hypothesis")
ERROR_COLUMNS = (
    "id",
    "speaker",
    "words",
    "substitutions",
    "insertions",
    "deletions",
    "chars",
    "char_errors",
)


class ScoreConfig(Protocol):
    """What stage `score` reads of its config."""

    @property
    def bootstrap_samples(self) -> int: ...

    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Edits:
    """A stretch of an alignment: the same edit over the words of both sides."""

    kind: str
    """`equal`, `substitute`, `insert` or `delete`."""
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Word by word; the side that has none is empty."""
        return list(zip_longest(self.reference, self.hypothesis, fillvalue=""))


def run(config: ScoreConfig, inputs: dict[str, Path], out: Path, work: Path) -> None:
    """Score every `<part>.<decoder>.tsv` of a decode directory."""
    del work  # scoring takes seconds: there is nothing to resume
    scores: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for part, files in _decoded_files(inputs["decode"]).items():
        decoded = {path: read_decoded(path) for path in files.values()}
        _check_decoders_agree(decoded)
        for decoder, path in files.items():
            errors = utterance_errors(decoded[path])
            errors.to_csv(out / f"{part}.{decoder}.errors.tsv", sep="\t", index=False)
            summary = summarize(errors, config.bootstrap_samples, config.seed)
            scores.setdefault(part, {})[decoder] = summary
    (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


def read_decoded(path: Path) -> pd.DataFrame:
    """Read one decoded part; every line, id and reference is checked."""
    header, *lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if tuple(header.split("\t")) != DECODED_COLUMNS:
        raise LightasrError(
            f"{path}: the header must be {', '.join(DECODED_COLUMNS)} (tab separated), "
            f"not {', '.join(header.split(chr(9)))}"
        )
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(DECODED_COLUMNS):
            raise LightasrError(
                f"{path}:{number}: {len(row)} fields where {len(DECODED_COLUMNS)} are needed"
            )
    decoded = pd.DataFrame(rows, columns=list(DECODED_COLUMNS))
    _check_utterances(path, decoded)
    for column in ("reference", "hypothesis"):
        decoded[column] = [" ".join(text.split()) for text in decoded[column]]
    return decoded.assign(seconds=_seconds(path, decoded["seconds"]))


def read_errors(path: Path) -> pd.DataFrame:
    """Read one `<part>.<decoder>.errors.tsv` of a score directory."""
    errors = pd.read_csv(
        path, sep="\t", dtype={"id": str, "speaker": str}, keep_default_na=False, quoting=3
    )
    if tuple(errors.columns) != ERROR_COLUMNS:
        raise LightasrError(f"{path}: the header must be {', '.join(ERROR_COLUMNS)}")
    return errors


def utterance_errors(decoded: pd.DataFrame) -> pd.DataFrame:
    """Count words, characters and their errors in each utterance; spaces count as characters."""
    references, hypotheses = list(decoded["reference"]), list(decoded["hypothesis"])
    words = jiwer.process_words(references, hypotheses)
    characters = jiwer.process_characters(references, hypotheses)
    counts = [_edit_counts(alignment) for alignment in words.alignments]
    return pd.DataFrame(
        {
            "id": decoded["id"],
            "speaker": decoded["speaker"],
            "words": [len(reference) for reference in words.references],
            "substitutions": [count["substitute"] for count in counts],
            "insertions": [count["insert"] for count in counts],
            "deletions": [count["delete"] for count in counts],
            "chars": [len(reference) for reference in characters.references],
            "char_errors": [_edit_counts(alignment).total() for alignment in characters.alignments],
        }
    )


def summarize(errors: pd.DataFrame, samples: int, seed: int) -> dict[str, float | int | None]:
    """Corpus totals, rates and the speaker-block interval of one part under one decoder."""
    sampled = sampled_rate([errors], samples, seed)
    interval = sampled.student(least=0) if sampled else None
    totals = errors.drop(columns=["id", "speaker"]).sum()
    return {
        "wer": WER.of(errors),
        "wer_low": interval.low if interval else None,
        "wer_high": interval.high if interval else None,
        "cer": CER.of(errors),
        **{str(name): int(total) for name, total in totals.items()},
        "utterances": len(errors),
        "speakers": int(errors["speaker"].nunique()),
    }


def check_same_utterances(
    first: pd.DataFrame, second: pd.DataFrame, first_name: str, second_name: str
) -> None:
    """Raise unless two tables speak of the same utterances."""
    odd = sorted(set(first["id"]) ^ set(second["id"]))
    if odd:
        raise LightasrError(
            f"{first_name} and {second_name} do not hold the same utterances: "
            f"only in one of them: {name_some(odd)}; decode both again from the same features"
        )


def word_edits(references: Sequence[str], hypotheses: Sequence[str]) -> Iterator[list[Edits]]:
    """The word alignment of each utterance."""
    if not references:
        return  # jiwer would align one utterance, without words
    output = jiwer.process_words(list(references), list(hypotheses))
    for chunks, reference, hypothesis in zip(
        output.alignments, output.references, output.hypotheses, strict=True
    ):
        yield [
            Edits(
                chunk.type,
                tuple(reference[chunk.ref_start_idx : chunk.ref_end_idx]),
                tuple(hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]),
            )
            for chunk in chunks
        ]


def confusions(decoded: pd.DataFrame) -> dict[str, Counter[tuple[str, str]]]:
    """How often each (reference, hypothesis) pair of words occurs, by kind of edit."""
    counts: dict[str, Counter[tuple[str, str]]] = {
        "substitute": Counter(),
        "insert": Counter(),
        "delete": Counter(),
    }
    for alignment in word_edits(list(decoded["reference"]), list(decoded["hypothesis"])):
        for edits in alignment:
            if edits.kind == "substitute":
                counts["substitute"].update(zip(edits.reference, edits.hypothesis, strict=True))
            elif edits.kind == "insert":
                counts["insert"].update(("", word) for word in edits.hypothesis)
            elif edits.kind == "delete":
                counts["delete"].update((word, "") for word in edits.reference)
    return counts


def _edit_counts(alignment: Sequence[jiwer.AlignmentChunk]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for chunk in alignment:
        if chunk.type == "insert":
            counts["insert"] += chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            counts[chunk.type] += chunk.ref_end_idx - chunk.ref_start_idx
    return counts


def _decoded_files(decode: Path) -> dict[str, dict[str, Path]]:
    """The decoded files by part and decoder."""
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(decode.glob("*.tsv")):
        part, _, decoder = path.stem.rpartition(".")
        if not part:
            raise LightasrError(f"{path}: a decoded file is named <part>.<decoder>.tsv")
        files.setdefault(part, {})[decoder] = path
    if not files:
        raise LightasrError(f"{decode}: no <part>.<decoder>.tsv to score; run stage `decode` first")
    return files


def _check_decoders_agree(decoded: dict[Path, pd.DataFrame]) -> None:
    (first, first_decoded), *others = decoded.items()
    references = dict(zip(first_decoded["id"], first_decoded["reference"], strict=True))
    for path, other in others:
        check_same_utterances(first_decoded, other, str(first), str(path))
        changed = [
            identifier
            for identifier, reference in zip(other["id"], other["reference"], strict=True)
            if references[identifier] != reference
        ]
        if changed:
            raise LightasrError(
                f"{first} and {path} hold different references for {name_some(changed)}"
            )


def _check_utterances(path: Path, decoded: pd.DataFrame) -> None:
    if decoded.empty:
        raise LightasrError(f"{path}: no utterances")
    doubled = list(decoded["id"][decoded["id"].duplicated()].unique())
    if doubled:
        raise LightasrError(f"{path}: more than one line for {name_some(doubled)}")
    blank = list(decoded["id"][decoded["reference"].str.strip() == ""])
    if blank:
        raise LightasrError(
            f"{path}: empty reference of {name_some(blank)}; "
            "an utterance without words has no error rate, leave it out of the part"
        )


def _seconds(path: Path, column: pd.Series) -> pd.Series:
    seconds = pd.to_numeric(column, errors="coerce")
    if seconds.isna().any():
        wrong = column[seconds.isna()].iloc[0]
        raise LightasrError(f"{path}: column seconds holds {wrong!r}, which is not a number")
    return seconds
