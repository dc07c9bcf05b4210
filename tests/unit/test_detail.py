"""What is counted behind an error rate, as text, as JSON and as a page."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pandas as pd
import pytest
from html_page import assert_loads_nothing, assert_well_formed

from lightasr.score import detail, errors_page
from lightasr.score.detail_text import SHOWN_SPEAKERS, detail_text


def decoded(*rows: tuple[str, str, str], seconds: list[float] | None = None) -> pd.DataFrame:
    """Speaker, reference and hypothesis of utterances u0, u1, ..."""
    speakers, references, hypotheses = zip(*rows, strict=True)
    table = pd.DataFrame(
        {
            "id": [f"u{number}" for number in range(len(rows))],
            "speaker": speakers,
            "reference": references,
            "hypothesis": hypotheses,
        }
    )
    return table if seconds is None else table.assign(seconds=seconds)


THREE = (
    ("ann", "A B C D", "A B C D"),
    ("ann", "A B", "A X"),
    ("bob", "A B C D E F", "A B E F G"),
)


def many(speakers: int, each: int = 1) -> pd.DataFrame:
    """Every speaker errs once in ten words, the first one twice."""
    words = "A B C D E F G H I J"
    heard = {0: "X Y C D E F G H I J"}
    return decoded(
        *[
            (f"speaker-with-a-rather-long-name-{n}", words, heard.get(n, f"X{words[1:]}"))
            for n in range(speakers)
            for _ in range(each)
        ]
    )


def test_rates_by_speaker_are_worst_first() -> None:
    bob, ann = detail.detail(decoded(*THREE)).by_speaker
    assert (bob.name, bob.utterances, bob.words) == ("bob", 1, 6)
    assert (bob.substitutions, bob.insertions, bob.deletions) == (0, 1, 2)
    assert bob.wer == 0.5
    assert (ann.name, ann.words, ann.errors) == ("ann", 6, 1)


def test_lengths_are_of_words_where_seconds_are_not_known() -> None:
    found = detail.detail(decoded(*THREE))
    assert found.length_unit == "words"
    assert [(group.name, group.utterances, group.errors) for group in found.by_length] == [
        ("1 to 5", 2, 1),
        ("6 to 10", 1, 3),
    ]


def test_lengths_are_of_seconds_where_known() -> None:
    found = detail.detail(decoded(*THREE, seconds=[2.0, 1.9, 40.0]))
    assert found.length_unit == "seconds"
    assert [(group.name, group.errors) for group in found.by_length] == [
        ("0 to 2", 1),
        ("2 to 3", 0),
        ("20 or more", 3),
    ]


def test_no_error_is_lost_between_groups() -> None:
    found = detail.detail(many(30))
    total = sum(found.summary[edit] or 0 for edit in detail.EDITS)
    assert total == 31
    assert sum(group.errors for group in found.by_speaker) == total
    assert sum(group.errors for group in found.by_length) == total


def test_text_fits_a_terminal_and_says_what_is_left_out() -> None:
    text = detail_text(detail.detail(many(30)), "hyp.trn")
    assert max(map(len, text.splitlines())) <= 80
    assert f"... and {30 - SHOWN_SPEAKERS} with a lower WER; --json lists all" in text
    assert text.startswith("hyp.trn\n30 utterances of 30 speakers, 300 words; errors in 100.0 % of")
    assert "WER 10.33 %" in text
    assert "30 A > X" in text


def test_without_speakers_there_is_a_rate_but_no_interval() -> None:
    found = detail.detail(decoded(("", "A B", "A"), ("", "C D", "C D")))
    assert found.interval is None
    assert found.by_speaker == []
    text = detail_text(found, "hyp")
    assert "WER 25.00 %" in text
    assert "else give --speakers" in text


def test_json_holds_all_of_it() -> None:
    tree = json.loads(json.dumps(detail.detail_json(detail.detail(decoded(*THREE)))))
    assert tree["wer"] == pytest.approx(4 / 12)
    assert tree["wrong_utterances"] == 2
    assert tree["by_speaker"][0]["name"] == "bob"
    assert tree["by_length"]["bins"][1] == {
        "name": "6 to 10",
        "utterances": 1,
        "words": 6,
        "substitutions": 0,
        "insertions": 1,
        "deletions": 2,
        "wer": 0.5,
    }
    assert {"reference": "B", "hypothesis": "X", "count": 1} in tree["confusions"]["substitute"]
    assert 0 <= tree["wer_low"] < tree["wer"] < tree["wer_high"]


def page_of(table: pd.DataFrame, out: Path) -> str:
    errors_page.write_errors_page(table, detail.detail(table), "a <b>.trn", out)
    return out.read_text(encoding="utf-8")


def test_the_page_aligns_word_by_word_and_needs_nothing(tmp_path: Path) -> None:
    page = page_of(decoded(*THREE), tmp_path / "new" / "errors.html")
    assert_loads_nothing(page)
    assert_well_formed(page)
    assert "Errors: a &lt;b&gt;.trn" in page
    assert '<span class="edit"><del>B</del><ins>X</ins></span>' in page
    assert '<span class="edit"><del>C</del></span>' in page
    assert '<span class="edit"><ins>G</ins></span>' in page
    assert "u2, speaker bob: 3 errors in 6 words" in page
    assert page.index("u2, speaker bob") < page.index("u1, speaker ann"), "the worst comes first"
    assert "u0, speaker" not in page, "it has no error"


def test_a_page_without_errors_says_so(tmp_path: Path) -> None:
    assert "There are none." in page_of(decoded(("s", "A", "A")), tmp_path / "e.html")


def test_a_long_page_is_folded_and_cut_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors_page, "MOST", 450)
    page = page_of(many(500), tmp_path / "e.html")
    assert_well_formed(page)
    assert "Shown are 450 utterances; 50 with fewer errors are left out." in page
    titles = re.findall(r"<summary>(Utterances .*)</summary>", page)
    assert titles == [
        "Utterances 101 to 300, with 1 error",
        "Utterances 301 to 450, with 1 error",
    ]


def test_a_page_of_a_librispeech_part_is_small_and_quick(tmp_path: Path) -> None:
    table = many(40, each=75)
    started = time.monotonic()
    page = page_of(table, tmp_path / "e.html")
    assert time.monotonic() - started < 10
    assert page.count('class="utterance"') == 3000
    assert len(page) < 3e6
