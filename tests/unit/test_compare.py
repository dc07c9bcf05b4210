"""Two systems side by side: each test by hand, what is printed, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from lightasr import cli
from lightasr.errors import LightasrError
from lightasr.plan import load_plan
from lightasr.score.compare import (
    Comparison,
    compare,
    comparison_json,
    comparison_text,
    mcnemar_test,
    sign_test,
)
from planning import finish

WORDS = ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"]
HEADER = "id\tspeaker\tseconds\treference\thypothesis\n"


def heard(*wrong: int, speakers: int = 10) -> pd.DataFrame:
    """An utterance of ten words for each number, with so many of them wrong."""
    return pd.DataFrame(
        {
            "id": [f"u{n}" for n in range(len(wrong))],
            "speaker": [f"s{n % speakers}" for n in range(len(wrong))],
            "reference": " ".join(WORDS),
            "hypothesis": [" ".join(["X"] * n + WORDS[n:]) for n in wrong],
        }
    )


def two(a: pd.DataFrame, b: pd.DataFrame) -> Comparison:
    return compare(a, b, ("a.trn", "b.trn"))


def test_mcnemar_counts_sentences_that_one_system_alone_got_right() -> None:
    found = mcnemar_test([0, 0, 0, 0, 0, 1, 2, 0], [1, 1, 1, 1, 3, 0, 1, 0])
    assert (found.pairs, found.a_better, found.b_better, found.equal) == (8, 5, 1, 2)
    assert found.p == pytest.approx(2 * (1 + 6) / 2**6)


def test_the_sign_test_counts_pairs() -> None:
    found = sign_test([0.1] * 6, [0.2] * 6)
    assert (found.a_better, found.b_better, found.p) == (6, 0, pytest.approx(2 / 2**6))


def test_equal_pairs_of_the_sign_test_go_half_to_either_side() -> None:
    """Five to two with one equal: three of eight, as NIST has it."""
    found = sign_test([1, 1, 1, 1, 1, 2, 2, 1], [2, 2, 2, 2, 2, 1, 1, 1])
    assert (found.a_better, found.b_better, found.equal) == (5, 2, 1)
    assert found.p == pytest.approx(2 * (1 + 8 + 28 + 56) / 2**8)
    assert sign_test([1, 1], [1, 1]).p == 1


def test_the_better_system_is_named_and_differences_are_a_less_b() -> None:
    found = two(heard(*[3] * 20), heard(*[2] * 19, 1))
    assert found.better == "b.trn"
    assert found.difference is not None
    assert found.difference.value == pytest.approx(0.105)
    assert found.segments.b_better == 20
    assert found.by_speaker is not None
    assert found.by_speaker.p == pytest.approx(2 / 2**10)
    swapped = two(heard(*[2] * 19, 1), heard(*[3] * 20))
    assert swapped.better == "a.trn"
    assert swapped.segments.p == found.segments.p
    assert swapped.sentences.p == found.sentences.p


def test_a_system_does_not_differ_from_itself() -> None:
    table = heard(1, 2, 0, 4)
    found = two(table, table)
    assert found.better is None
    assert found.segments.p == found.sentences.p == 1
    assert "A and B have the same WER." in comparison_text(found)


def test_the_order_of_lines_does_not_matter() -> None:
    a, b = heard(1, 2, 3, 4), heard(0, 0, 5, 0)
    assert comparison_json(two(a, b)) == comparison_json(two(a, b.iloc[::-1]))


def test_the_text_in_full() -> None:
    """The numbers that are counted; those of the bootstrap are tested where it is."""
    text = comparison_text(two(heard(*[3] * 12, 0, 1), heard(*[2] * 12, 0, 0)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[:12] == [
        "14 utterances of 10 speakers, 140 words",
        "  A  WER  26.43 %  a.trn",
        "  B  WER  17.14 %  b.trn",
        "B is better by 9.29 points, 35.1 % of 26.43.",
        "",
        "test                  over                 A better B better   equal       p",
        "MAPSSWE               13 segments                 0       13       0       -",
        "McNemar               14 sentences                0        1      13   1.000",
        "sign                  10 speakers                 0       10       0   0.002",
        "Student's t           10 speakers                                      0.002",
        "bootstrap             10 speakers                                      0.002",
        "",
    ]
    assert lines[12] == ("WER of A less that of B: 9.29 points; 95 % intervals over speakers:")
    assert lines[-1] == "MAPSSWE has only 13 segments: its p is a rough one."


def test_without_speakers_the_tests_on_words_and_sentences_remain() -> None:
    a, b = heard(3, 3, 3), heard(2, 2, 1)
    found = two(a.assign(speaker=""), b.assign(speaker=""))
    assert (found.by_speaker, found.difference) == (None, None)
    text = comparison_text(found)
    assert "MAPSSWE" in text
    assert "bootstrap" not in text
    assert "--speakers UTT2SPK names them" in text
    assert comparison_json(found)["difference"] is None


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("id", "u9", "only in one of them: u0, u9"),
        ("speaker", "s9", "another speaker of u0"),
        ("reference", "A", "another reference of u0"),
    ],
)
def test_only_the_same_utterances_are_compared(column: str, value: str, message: str) -> None:
    other = heard(1, 2)
    other.loc[0, column] = value
    with pytest.raises(LightasrError, match=re.escape(message)) as error:
        two(heard(1, 2), other)
    assert "a.trn" in str(error.value)


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reference and two hypotheses as NIST writes them, in the current folder."""
    texts = {"ref": heard(*[0] * 20), "a": heard(*[3] * 20), "b": heard(*[2] * 10, *[1] * 10)}
    for name, table in texts.items():
        lines = [
            f"{text} ({speaker}-{utterance})\n"
            for utterance, speaker, text in zip(
                table["id"], table["speaker"], table["hypothesis"], strict=True
            )
        ]
        (tmp_path / f"{name}.trn").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lightasr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["lightasr", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_compare_and_score_take_files_outside_of_any_project(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = lightasr(monkeypatch, capsys, "compare", "ref.trn", "a.trn", "b.trn")
    assert (code, err) == (0, "")
    assert "B is better by 15.00 points, 50.0 % of 30.00." in out
    command = ("compare", "ref.trn", "a.trn", "b.trn", "--json")
    assert json.loads(lightasr(monkeypatch, capsys, *command)[1])["better"] == "b"
    code, out, _ = lightasr(monkeypatch, capsys, "score", "ref.trn", "a.trn", "--page", "e.html")
    assert code == 0
    assert "WER 30.00 %" in out
    assert "Errors: a.trn" in (files / "e.html").read_text()
    out = lightasr(monkeypatch, capsys, "score", "ref.trn", "a.trn", "--json")[1]
    assert json.loads(out)["substitutions"] == 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("compare ref.trn", "expected a reference and two hypotheses"),
        ("compare ref.trn a.trn missing.trn", "missing.trn: no such file"),
        ("compare a.trn b.trn", "a.trn: the header must be id, speaker, seconds"),
        ("score ref.trn a.trn b.trn", "`lightasr compare REF HYP_A HYP_B` compares two"),
        ("score a.trn --speakers ref.trn", "a decoded file names its speakers itself"),
        ("score lstm", "run this inside the project"),
    ],
)
def test_wrong_arguments_are_one_message(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    message: str,
) -> None:
    code, out, err = lightasr(monkeypatch, capsys, *arguments.split())
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_runs_of_the_plan_are_named_like_everywhere(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(project, "smoke")
    for name, wrong in (("lstm", 3), ("gru", 2)):
        folder = project / plan.run(name).decode.dir
        folder.mkdir(parents=True)
        lines = [
            f"{row['id']}\t{row['speaker']}\t4.0\t{row['reference']}\t{row['hypothesis']}\n"
            for row in heard(*[wrong] * 10).to_dict("records")
        ]
        (folder / "test-clean.beam.tsv").write_text(HEADER + "".join(lines))
    shell = (monkeypatch, capsys)
    code, out, _ = lightasr(
        *shell, "compare", "lstm", "gru", "--of", "test-clean.beam", "--scale", "smoke"
    )
    assert code == 0
    assert "B is better by 10.00 points" in out
    code, _, err = lightasr(*shell, "compare", "lstm", "gru", "--scale", "smoke")
    assert code == 1
    assert "which part and decoder? give --of, one of test-clean.beam" in err
    file = plan.run("lstm").decode.dir + "/test-clean.beam.tsv"
    code, out, _ = lightasr(*shell, "score", file)
    assert code == 0
    assert "seconds  " in out


def test_scoring_a_run_is_the_stage_and_then_shows_what_is_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(project, "smoke")
    run = plan.run("lstm")
    finish(plan, [run.decode])
    rows = [f"u{n}\ts{n}\t1.0\tA B C\tA B\n" for n in range(4)]
    (project / run.decode.dir / "test-clean.beam.tsv").write_text(HEADER + "".join(rows))
    shell = (monkeypatch, capsys)
    code, out, _ = lightasr(*shell, "score", "lstm", "--scale", "smoke")
    assert (code, out) == (0, "")
    assert "test-clean" in json.loads((project / run.score.dir / "scores.json").read_text())
    asked = ("--of", "test-clean.beam", "--page", "errors.html")
    code, out, _ = lightasr(*shell, "score", "lstm", "--scale", "smoke", *asked)
    assert code == 0
    assert "WER 33.33 %" in out
    assert "<del>C</del>" in (project / "errors.html").read_text()
