"""Text is brought into LibriSpeech's form, and nothing a tokenizer should name is hidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightasr.text.normalize import normalize, outside_alphabet


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("It\u2019s 5 o`clock \u2014 isn\u00b4t it?", "IT'S 5 O'CLOCK ISN'T IT"),
        ("  two\twords\n", "TWO WORDS"),
        ("well-known, snake_case; 10%", "WELL KNOWN SNAKE CASE 10"),
        ("\uff26\uff35\uff2c\uff2c \ufb01t", "FULL FIT"),
        ("cafe\u0301 stra\u00dfe", "CAF\u00c9 STRASSE"),
        ("ALREADY CLEAN", "ALREADY CLEAN"),
        ("?!", ""),
    ],
)
def test_normalize(written: str, expected: str) -> None:
    assert normalize(written) == expected


@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once


@given(st.text())
def test_words_are_separated_by_single_spaces(text: str) -> None:
    assert normalize(text).split(" ") == (normalize(text).split() or [""])


def test_outside_alphabet_names_what_is_missing() -> None:
    assert outside_alphabet("CAF\u00c9 5", "ABCDEF ") == {"\u00c9", "5"}
