"""NIST's matched-pairs test: hand-counted segments, an independent way to them, NIST's own tool."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightasr.score.compare import mcnemar_test, sign_test
from lightasr.score.mapsswe import (
    Segment,
    WordErrors,
    matched_pairs_test,
    segment_test,
    utterance_segments,
    word_errors,
)

Row = tuple[str, list[str], list[str], list[str]]
"""Id, reference, and what A and B heard."""
DEBIAN = "/usr/lib/sctk/bin"  # where Debian's package `sctk` keeps the programs
PROGRAMS = os.pathsep.join([os.environ.get("PATH", ""), DEBIAN])
SC_STATS = shutil.which("sc_stats", path=PROGRAMS)
# What sc_stats 1.3 of SCTK 2.4.10 printed for `heard_by_two(seed, words)`.
NIST = {
    (0, 3): {
        "segments": 179,
        "errors_a": 131,
        "errors_b": 158,
        "mean": -0.151,
        "sd": 1.119,
        "z": -1.803,
        "only_a_right": 12,
        "only_b_right": 5,
        "sign_p": 0.289,
    },
    (1, 6): {
        "segments": 192,
        "errors_a": 130,
        "errors_b": 186,
        "mean": -0.292,
        "sd": 1.184,
        "z": -3.414,
        "only_a_right": 11,
        "only_b_right": 7,
        "sign_p": 0.07,
    },
    (2, 40): {
        "segments": 183,
        "errors_a": 153,
        "errors_b": 193,
        "mean": -0.219,
        "sd": 1.203,
        "z": -2.459,
        "only_a_right": 10,
        "only_b_right": 5,
        "sign_p": 0.008,
    },
}
WORDS = st.lists(st.sampled_from("abc"), max_size=8)


def heard_by_two(seed: int, vocabulary: int) -> list[Row]:
    """Utterances of eight speakers, and what two systems make of them; the second errs more."""
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(vocabulary)]

    def word() -> str:
        return words[int(rng.random() * vocabulary)]

    def heard(said: list[str], rate: float) -> list[str]:
        out = []
        for each in said:
            right, kind = rng.random() >= rate, rng.random()
            if right:
                out.append(each)
            elif kind < 0.5:
                out.append(word())
            elif kind > 0.75:
                out += [each, word()]
        return out

    rows = []
    for number in range(80):
        said = [word() for _ in range(1 + int(rng.random() * 25))]
        rows.append((f"s{number % 8}-{number:03d}", said, heard(said, 0.15), heard(said, 0.2)))
    return rows


def tables(rows: Sequence[Row]) -> tuple[pd.DataFrame, pd.DataFrame]:
    a, b = (
        pd.DataFrame(
            {
                "reference": [" ".join(row[1]) for row in rows],
                "hypothesis": [" ".join(row[column]) for row in rows],
            }
        )
        for column in (2, 3)
    )
    return a, b


def segments(reference: str, a: str, b: str) -> list[tuple[int, int]]:
    said = reference.split()
    found = utterance_segments(word_errors(said, a.split()), word_errors(said, b.split()))
    return [(segment.errors_a, segment.errors_b) for segment in found]


@pytest.mark.parametrize(
    ("reference", "a", "b", "expected"),
    [
        ("a b c d", "a b c d", "a b c d", []),
        ("a b c d", "a x c d", "a b c d", [(1, 0)]),
        ("a b c d e f", "x b c d e f", "a b c d e x", [(1, 0), (0, 1)]),
        ("a b c d", "x b c d", "a b c x", [(1, 0), (0, 1)]),
        ("a b c", "x b c", "a b x", [(1, 1)]),
        ("a b c", "x b c", "a x c", [(1, 1)]),
        ("a b c d", "x b c d", "a b y c d", [(1, 1)]),
        ("a b c d", "x b c d", "a b c y d", [(1, 0), (0, 1)]),
        ("a b", "a b x", "a b", [(1, 0)]),
        ("a b", "a b", "a b x y", [(0, 2)]),
        ("a b", "", "x a b", [(2, 1)]),
    ],
)
def test_segments_lie_between_two_words_in_a_row_that_both_got_right(
    reference: str, a: str, b: str, expected: list[tuple[int, int]]
) -> None:
    assert segments(reference, a, b) == expected
    assert segments(reference, b, a) == [(two, one) for one, two in expected]


def test_the_statistic_by_hand() -> None:
    """Differences 1, 1, 0, -1, 2: mean 0.6, sd 1.140, z = 0.6 / (1.140 / sqrt 5) = 1.177."""
    found = segment_test(
        [Segment(1, 0), Segment(2, 1), Segment(1, 1), Segment(0, 1), Segment(2, 0)]
    )
    assert (found.segments, found.a_better, found.b_better) == (5, 1, 3)
    assert (found.errors_a, found.errors_b) == (6, 3)
    assert found.z == pytest.approx(1.1767, abs=1e-4)
    assert found.p == pytest.approx(0.2393, abs=1e-4)
    assert found.rough


def test_systems_that_never_differ_are_equal() -> None:
    for same in ([], [Segment(1, 1)], [Segment(1, 1), Segment(2, 2)]):
        assert (segment_test(same).z, segment_test(same).p) == (0, 1)


def test_segments_that_all_differ_alike_give_no_statistic() -> None:
    assert segment_test([Segment(1, 0)]).p is None
    assert segment_test([Segment(1, 0), Segment(1, 0)]).p is None


def cost(errors: WordErrors, hypothesis: Sequence[str]) -> int:
    """Of an alignment: insertions and deletions cost 3, substitutions 4."""
    inserted = sum(errors.inserted)
    deleted = len(errors.wrong) + inserted - len(hypothesis)
    return 3 * (inserted + deleted) + 4 * (sum(errors.wrong) - deleted)


@given(WORDS, WORDS)
def test_no_alignment_is_cheaper(reference: list[str], hypothesis: list[str]) -> None:
    @cache
    def cheapest(said: int, heard: int) -> int:
        if not (said and heard):
            return 3 * (said + heard)
        differs = reference[said - 1] != hypothesis[heard - 1]
        return min(
            cheapest(said - 1, heard - 1) + 4 * differs,
            cheapest(said - 1, heard) + 3,
            cheapest(said, heard - 1) + 3,
        )

    found = word_errors(reference, hypothesis)
    assert cost(found, hypothesis) == cheapest(len(reference), len(hypothesis))


@given(WORDS, WORDS, WORDS)
def test_segments_are_what_is_left_between_runs_of_good_words(
    reference: list[str], heard_a: list[str], heard_b: list[str]
) -> None:
    """Each utterance as a string, good words as `g`, cut wherever there are two or more."""
    a, b = word_errors(reference, heard_a), word_errors(reference, heard_b)
    events = []
    for position in range(len(reference) + 1):
        events += ["A"] * a.inserted[position] + ["B"] * b.inserted[position]
        if position < len(reference):
            wrong = "A" * a.wrong[position] + "B" * b.wrong[position]
            events.append(wrong or "g")
    pieces = re.split("gg+", "".join(events))
    expected = [(piece.count("A"), piece.count("B")) for piece in pieces if piece.strip("g")]
    found = [(one.errors_a, one.errors_b) for one in utterance_segments(a, b)]
    assert found == expected


def three_tests(rows: Sequence[Row]) -> dict[str, float]:
    """Our numbers as `sc_stats` prints them; all by its alignment."""
    found = matched_pairs_test(*tables(rows))
    assert found.sd is not None
    assert found.z is not None
    counts = []
    for column in (2, 3):
        aligned = [word_errors(row[1], row[column]) for row in rows]
        counts.append([sum(errors.wrong) + sum(errors.inserted) for errors in aligned])
    sentences = mcnemar_test(*counts)
    speakers = [row[0].split("-")[0] for row in rows]
    words = pd.Series([len(row[1]) for row in rows]).groupby(speakers).sum()
    rates = [pd.Series(errors).groupby(speakers).sum() / words for errors in counts]
    return {
        "segments": found.segments,
        "errors_a": found.errors_a,
        "errors_b": found.errors_b,
        "mean": round(found.mean, 3),
        "sd": round(found.sd, 3),
        "z": round(found.z, 3),
        "only_a_right": sentences.a_better,
        "only_b_right": sentences.b_better,
        "sign_p": round(sign_test(*(list(rate) for rate in rates)).p, 3),
    }


def nist(rows: Sequence[Row], folder: Path) -> dict[str, float]:
    """What NIST's `sclite` and `sc_stats` make of the same texts."""
    assert SC_STATS is not None
    sclite = Path(SC_STATS).with_name("sclite")
    for name, column in (("ref", 1), ("a", 2), ("b", 3)):
        lines = [f"{' '.join(row[column])} ({row[0]})\n" for row in rows]
        (folder / f"{name}.trn").write_text("".join(lines))
    for name in "ab":
        files = ["-r", "ref.trn", "trn", "-h", f"{name}.trn", "trn", name.upper()]
        how = ["-i", "spu_id", "-o", "sgml", "-f", "0"]
        subprocess.run([sclite, *files, *how], cwd=folder, check=True, capture_output=True)
    aligned = b"".join((folder / f"{name}.trn.sgml").read_bytes() for name in "ab")
    printed = {}
    for test in ("mapsswe", "mcn", "sign"):
        command = [SC_STATS, "-p", "-t", test, "-v", "-n", "out", "-O", "."]
        subprocess.run(command, cwd=folder, input=aligned, check=True, capture_output=True)
        printed[test] = (folder / f"out.stats.{test}").read_text(errors="replace")
    number = r"\s*([-\d.]+)"
    line = re.search(
        rf"# segs:{number}.*mean:{number}\) \(std dev:{number}\) \(Z Stat:{number}",
        printed["mapsswe"],
    )
    totals = re.search(rf"Totals{number}{number}{number}", printed["mapsswe"])
    # Only the counts: for many sentences the p-value that sc_stats prints is no binomial one.
    mcnemar = re.search(rf" corr{number}{number}\s+incorr{number}", printed["mcn"])
    sign = re.search(rf"it occurring is{number},", printed["sign"])
    assert line is not None
    assert totals is not None
    assert mcnemar is not None
    assert sign is not None
    return {
        "segments": int(line[1]),
        "errors_a": int(totals[2]),
        "errors_b": int(totals[3]),
        "mean": float(line[2]),
        "sd": float(line[3]),
        "z": float(line[4]),
        "only_a_right": int(mcnemar[2]),
        "only_b_right": int(mcnemar[3]),
        "sign_p": float(sign[1]),
    }


@pytest.mark.parametrize(("seed", "vocabulary"), NIST)
def test_the_numbers_are_those_that_nist_printed(seed: int, vocabulary: int) -> None:
    assert three_tests(heard_by_two(seed, vocabulary)) == NIST[seed, vocabulary]


@pytest.mark.skipif(SC_STATS is None, reason="needs NIST's SCTK (Debian: apt install sctk)")
@pytest.mark.parametrize("seed", range(12))
def test_the_numbers_are_those_that_nist_prints_here(seed: int, tmp_path: Path) -> None:
    rows = heard_by_two(seed, (3, 6, 40)[seed % 3])
    assert three_tests(rows) == nist(rows, tmp_path)
