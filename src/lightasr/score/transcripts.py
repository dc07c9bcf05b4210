"""Reads references and hypotheses of any system, to be scored: LibriSpeech, Kaldi, NIST and TSV.

The form is found by looking at the text, not at the name:

- a TSV has a header with `id` and `text` (or `reference`, `hypothesis`), `speaker` and `seconds`;
- NIST's `trn` has the id at the end of the line: `words (speaker-utterance)`;
- else the id is the first word of the line, as in LibriSpeech's `*.trans.txt` and Kaldi's `text`.

A folder stands for all `*.trans.txt` below it, or is a Kaldi data directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lightasr.data.manifests.entries import read_text, seconds_of
from lightasr.errors import LightasrError
from lightasr.score.bootstrap import name_some

NO_SPEAKER = ""
REFERENCE = ("reference", "text")
HYPOTHESIS = ("hypothesis", "text")
TSV_COLUMNS = {"id", "speaker", "seconds", *REFERENCE, *HYPOTHESIS}
TRN = re.compile(r"(?P<text>.*?)\s*\((?P<id>[^()\s]+)\)")
TRN_SPEAKER = re.compile(r"[^-_]+(?=[-_])")
LIBRISPEECH_ID = re.compile(r"(?P<speaker>[0-9]+)-[0-9]+-[0-9]+")


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said, or what a system heard, in one utterance."""

    text: str
    where: str
    """File and line."""
    speaker: str = NO_SPEAKER
    seconds: float | None = None


Transcripts = dict[str, Transcript]


def read_pair(reference: Path, hypothesis: Path, speakers: Path | None = None) -> pd.DataFrame:
    """Both files side by side, in the reference's order: id, speaker, seconds, and both texts.

    `seconds` is there if it is known of all; the speaker is `NO_SPEAKER` where no file tells it.
    """
    said, heard = read_transcripts(reference, REFERENCE), read_transcripts(hypothesis, HYPOTHESIS)
    _check_references(said)
    _check_same(said, heard, reference, hypothesis)
    known = _read_speakers(speakers) if speakers else {}
    decoded = pd.DataFrame(
        {
            "id": list(said),
            "speaker": _speakers(said, heard, known, speakers),
            "reference": [transcript.text for transcript in said.values()],
            "hypothesis": [heard[name].text for name in said],
        }
    )
    lengths = [one.seconds or heard[name].seconds for name, one in said.items()]
    seconds = pd.Series(lengths, dtype=float)
    return decoded if seconds.isna().any() else decoded.assign(seconds=seconds)


def read_transcripts(path: Path, columns: tuple[str, ...]) -> Transcripts:
    """The utterances of a file or a folder; of a TSV, the text in the first of `columns` it has."""
    found: Transcripts = {}
    for file in _files(path):
        for name, transcript in _read_file(file, columns):
            if name in found:
                raise LightasrError(
                    f"{transcript.where}: the id {name} is there twice, at {found[name].where} too"
                )
            found[name] = transcript
    if not found:
        raise LightasrError(f"{path}: no utterances in it")
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise LightasrError(f"{path}: no such file or directory")
    if files := sorted(path.rglob("*.trans.txt")):
        return files
    if (path / "text").is_file():
        return [path / "text"]
    some = [file.name for file in sorted(path.glob("*.tsv"))]
    hint = f"; name one of its files: {name_some(some)}" if some else ""
    raise LightasrError(f"{path}: neither *.trans.txt nor Kaldi's `text` in this folder{hint}")


def _read_file(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Transcript]]:
    lines = [
        (f"{path}:{number}", line.strip(" "))
        for number, line in enumerate(read_text(path).split("\n"), start=1)
        if line.strip()
    ]
    if not lines:
        raise LightasrError(f"{path}: no utterances in it: the file is empty")
    first = lines[0][1]
    if TSV_COLUMNS.intersection(first.split("\t")) and "\t" in first:
        return _read_tsv(path, lines, columns)
    if TSV_COLUMNS.intersection(first.split(",")) and "," in first:
        raise LightasrError(f"{lines[0][0]}: columns are separated by tabs, not commas")
    if first.startswith(("{", "[")):
        raise LightasrError(f"{lines[0][0]}: JSON; give a TSV with a header `id` and `text`")
    if TRN.fullmatch(first):
        return _read_trn(lines)
    return _read_id_first(path, lines)


def _read_tsv(
    path: Path, lines: list[tuple[str, str]], columns: tuple[str, ...]
) -> Iterator[tuple[str, Transcript]]:
    (where, header), *rows = lines
    names = header.split("\t")
    column = next((name for name in columns if name in names), None)
    if "id" not in names or column is None:
        raise LightasrError(
            f"{where}: the header needs `id` and `{'` or `'.join(columns)}`; there are: "
            f"{', '.join(names)}"
        )
    if len(set(names)) < len(names):
        raise LightasrError(f"{where}: a column is there twice: {', '.join(names)}")
    if not rows:
        raise LightasrError(f"{path}: no utterances in it: there is only a header")
    for where, line in rows:
        fields = line.split("\t")
        if len(fields) != len(names):
            raise LightasrError(f"{where}: {len(fields)} fields, the header has {len(names)}")
        row = dict(zip(names, fields, strict=True))
        if not row["id"].strip():
            raise LightasrError(f"{where}: no id")
        try:
            seconds = seconds_of(row["seconds"], "seconds") if row.get("seconds") else None
        except LightasrError as error:
            raise LightasrError(f"{where}: {row['id']}: {error}") from None
        speaker = row.get("speaker") or _librispeech_speaker(row["id"])
        yield row["id"], Transcript(_spaced(row[column]), where, speaker, seconds)


def _read_trn(lines: list[tuple[str, str]]) -> Iterator[tuple[str, Transcript]]:
    for where, line in lines:
        found = TRN.fullmatch(line)
        if found is None:
            raise LightasrError(
                f"{where}: expected `words (speaker-utterance)` as in the lines above, "
                f"found {line[-40:]!r}"
            )
        speaker = TRN_SPEAKER.match(found["id"])
        yield (
            found["id"],
            Transcript(_spaced(found["text"]), where, speaker[0] if speaker else NO_SPEAKER),
        )


def _read_id_first(path: Path, lines: list[tuple[str, str]]) -> Iterator[tuple[str, Transcript]]:
    """LibriSpeech's and Kaldi's lines; of a Kaldi data directory, `utt2spk` names the speakers."""
    beside = path.with_name("utt2spk")
    speakers = _read_speakers(beside) if path.name == "text" and beside.is_file() else {}
    for where, line in lines:
        name, *words = line.split()
        speaker = speakers.get(name) or _librispeech_speaker(name)
        yield name, Transcript(" ".join(words), where, speaker)


def _read_speakers(path: Path) -> dict[str, str]:
    """Kaldi's `utt2spk`: an id and its speaker a line."""
    if not path.is_file():
        raise LightasrError(f"{path}: no such file")
    speakers = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) != 2:
            raise LightasrError(f"{path}:{number}: expected `id speaker`, found {line!r}")
        speakers[fields[0]] = fields[1]
    return speakers


def _librispeech_speaker(name: str) -> str:
    found = LIBRISPEECH_ID.fullmatch(name)
    return found["speaker"] if found else NO_SPEAKER


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _check_references(said: Transcripts) -> None:
    for name, transcript in said.items():
        if not transcript.text:
            raise LightasrError(
                f"{transcript.where}: empty reference of {name}: an utterance without words has "
                "no error rate; leave it out of both files"
            )


def _check_same(said: Transcripts, heard: Transcripts, reference: Path, hypothesis: Path) -> None:
    missing = [name for name in said if name not in heard]
    unknown = [name for name in heard if name not in said]
    if missing:
        raise LightasrError(
            f"{hypothesis}: no line for {name_some(missing)} of {reference}; "
            "an utterance in which nothing was heard has a line without words"
        )
    if unknown:
        name = unknown[0]
        raise LightasrError(
            f"{heard[name].where}: {name_some(unknown)}: no such utterance in {reference}"
        )


def _speakers(
    said: Transcripts, heard: Transcripts, known: Mapping[str, str], speakers: Path | None
) -> list[str]:
    """Of each utterance: what the user's list says, else the reference, else the hypothesis."""
    if speakers is not None:
        unlisted = [name for name in said if name not in known]
        if unlisted:
            raise LightasrError(f"{speakers}: no speaker of {name_some(unlisted)}")
        return [known[name] for name in said]
    found = [one.speaker or heard[name].speaker for name, one in said.items()]
    without = [name for name, speaker in zip(said, found, strict=True) if not speaker]
    if without and len(without) < len(found):
        raise LightasrError(
            f"{said[without[0]].where}: no speaker of {name_some(without)}, but of others; "
            "name all of them with `--speakers UTT2SPK` (lines of `id speaker`)"
        )
    return found
