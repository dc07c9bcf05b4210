"""Word and character errors: hand-counted cases, jiwer's totals, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import jiwer
import pandas as pd
import pytest

from lightasr.errors import LightasrError
from lightasr.score import wer
from lightasr.score.bootstrap import CER, WER

CONFIG = SimpleNamespace(bootstrap_samples=200, seed=1)
HEADER = "id\tspeaker\tseconds\treference\thypothesis"


def decoded(*pairs: tuple[str, str]) -> pd.DataFrame:
    references, hypotheses = zip(*pairs, strict=True)
    return pd.DataFrame(
        {
            "id": [f"u{index}" for index in range(len(pairs))],
            "speaker": [f"s{index % 2}" for index in range(len(pairs))],
            "reference": references,
            "hypothesis": hypotheses,
        }
    )


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "substitutions", "insertions", "deletions", "char_errors"),
    [
        ("THE CAT SAT", "THE CAT SAT", 3, 0, 0, 0, 0),
        ("THE CAT SAT", "THE CAT", 3, 0, 0, 1, 4),
        ("THE CAT", "THE BIG CAT", 2, 0, 1, 0, 4),
        ("THE CAT", "THE CUT", 2, 1, 0, 0, 1),
        ("A B C D", "X B C", 4, 1, 0, 1, 3),
        ("THE CAT", "", 2, 0, 0, 2, 7),
        ("NO", "YES WE CAN", 1, 1, 2, 0, 10),
    ],
)
def test_counts_of_an_utterance_are_those_counted_by_hand(
    reference: str,
    hypothesis: str,
    words: int,
    substitutions: int,
    insertions: int,
    deletions: int,
    char_errors: int,
) -> None:
    row = wer.utterance_errors(decoded((reference, hypothesis))).iloc[0]
    assert row["words"] == words
    assert row["chars"] == len(reference)
    assert (row["substitutions"], row["insertions"], row["deletions"]) == (
        substitutions,
        insertions,
        deletions,
    )
    assert row["char_errors"] == char_errors


def test_corpus_rates_are_jiwers_own() -> None:
    table = decoded(
        ("I LOST MY CARD ON LINE SIX", "I LAST MY CAR ON LINE"),
        ("WHEN IS THE NEXT BUS", "WHEN IS THE THE NEXT BUS PLEASE"),
        ("THANK YOU", ""),
    )
    errors = wer.utterance_errors(table)
    references, hypotheses = list(table["reference"]), list(table["hypothesis"])
    assert WER.of(errors) == pytest.approx(jiwer.wer(references, hypotheses))
    assert CER.of(errors) == pytest.approx(jiwer.cer(references, hypotheses))


def test_stage_scores_every_part_under_every_decoder(tmp_path: Path) -> None:
    decode, out = tmp_path / "decode", tmp_path / "out"
    decode.mkdir()
    out.mkdir()
    write(decode / "test-clean.greedy.tsv", "u1\ts1\t1.5\tTHE CAT\tA CAT", "u2\ts2\t2\tNO\tNO")
    write(decode / "test-clean.beam.tsv", "u1\ts1\t1.5\tTHE CAT\tTHE CAT", "u2\ts2\t2\tNO\t")

    wer.run(CONFIG, {"decode": decode}, out, tmp_path)

    scores = json.loads((out / "scores.json").read_text())["test-clean"]
    assert scores["greedy"] == {
        "wer": pytest.approx(1 / 3),
        "wer_low": 0.0,
        "wer_high": pytest.approx(1 / 3 + 12.71 * 0.257, rel=0.05),  # t(1), and by hand
        "cer": pytest.approx(3 / 9),
        "words": 3,
        "substitutions": 1,
        "insertions": 0,
        "deletions": 0,
        "chars": 9,
        "char_errors": 3,
        "utterances": 2,
        "speakers": 2,
    }
    assert scores["beam"]["deletions"] == 1
    errors = wer.read_errors(out / "test-clean.greedy.errors.tsv")
    assert list(errors["id"]) == ["u1", "u2"]
    assert list(errors["substitutions"]) == [1, 0]


def test_an_interval_is_left_open_with_one_speaker() -> None:
    summary = wer.summarize(wer.utterance_errors(decoded(("A B", "A"))), samples=100, seed=1)
    assert summary["wer"] == 0.5
    assert summary["wer_low"] is summary["wer_high"] is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["u1\ts\t1\t \tA", "u2\ts\t1\tA\tA"], "empty reference of u1"),
        (["u1\ts\t1\tA\tA", "u1\ts\t1\tA\tA"], "more than one line for u1"),
        (["u1\ts\t1\tA"], ":2: 4 fields where 5 are needed"),
        (["u1\ts\tlong\tA\tA"], "'long', which is not a number"),
        ([], "no utterances"),
    ],
)
def test_bad_decoded_files_are_refused_by_name(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = write(tmp_path / "test-clean.beam.tsv", *lines)
    with pytest.raises(LightasrError, match=re.escape(message)) as error:
        wer.read_decoded(path)
    assert str(path) in str(error.value)


def test_quotes_and_the_word_na_are_plain_text(tmp_path: Path) -> None:
    path = write(tmp_path / "p.beam.tsv", 'NA\tnull\t1\tNA "\t"')
    row = wer.read_decoded(path).iloc[0]
    assert (row["id"], row["speaker"], row["reference"], row["hypothesis"]) == (
        "NA",
        "null",
        'NA "',
        '"',
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [("u2\ts\t1\tA\tA", "only in one of them: u1, u2"), ("u1\ts\t1\tB\tA", "references for u1")],
)
def test_decoders_must_speak_of_the_same_utterances(
    tmp_path: Path, other: str, message: str
) -> None:
    write(tmp_path / "dev.beam.tsv", "u1\ts\t1\tA\tA")
    write(tmp_path / "dev.greedy.tsv", other)
    with pytest.raises(LightasrError, match=message):
        wer.run(CONFIG, {"decode": tmp_path}, tmp_path, tmp_path)


def test_confusions_count_pairs_of_words() -> None:
    counts = wer.confusions(decoded(("A CAT SAT", "THE CAT SAT DOWN"), ("A DOG", "THE")))
    assert counts["substitute"][("A", "THE")] == 2
    assert counts["insert"] == {("", "DOWN"): 1}
    assert counts["delete"] == {("DOG", ""): 1}
