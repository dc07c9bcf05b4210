"""Text is brought into the form the config asks for; nothing a tokenizer should name is hidden."""

from __future__ import annotations

import itertools
import pickle
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from num2words import num2words

from lightasr.invalid import check
from lightasr.schema import Experiment, Language, Scale, Text
from lightasr.text.normalize import Normalizer, outside_alphabet
from lightasr.text.numbers import DECIMALS, ORDINAL_ENDINGS, NumberReader

OPTIONS = {
    name: get_args(field.annotation)
    for name, field in Text.model_fields.items()
    if name != "language"
}
EVERY_CONFIG = [
    Text(**dict(zip(OPTIONS, values, strict=True)))
    for values in itertools.product(*OPTIONS.values())
]
# Plain text, digits and what changes under NFKC or with its case, more often than by chance.
TEXTS = st.text(
    st.sampled_from("aZ 1905.,'\u2019-\u00e9\u0301\u00df\u0130\u0149\u00bd\u00b2\u2033\uff07|")
    | st.characters()
)
PAGE = Path(__file__).parents[2] / "docs" / "text.md"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("It\u2019s 5 o`clock \u2014 isn\u00b4t it?", "IT'S 5 O'CLOCK ISN'T IT"),
        ("  two\twords\n", "TWO WORDS"),
        ("well-known, snake_case; 10%", "WELL KNOWN SNAKE CASE 10"),
        ("\uff26\uff35\uff2c\uff2c \ufb01t", "FULL FIT"),
        ("cafe\u0301 stra\u00dfe", "CAF\u00c9 STRASSE"),
        ("ALREADY CLEAN", "ALREADY CLEAN"),
        ("\ufeffMARKED\r\n", "MARKED"),
        ("?!", ""),
    ],
)
def test_librispeech_form_is_the_default(written: str, expected: str) -> None:
    assert Normalizer(Text())(written) == expected


def shown(config: Text) -> str:
    return ",".join(str(getattr(config, name)) for name in OPTIONS)


@pytest.mark.parametrize("config", EVERY_CONFIG, ids=shown)
@given(text=TEXTS)
def test_every_form_is_stable_and_holds_what_it_may(config: Text, text: str) -> None:
    normalize = Normalizer(config)
    once = normalize(text)
    assert normalize(once) == once
    assert once.split(" ") == (once.split() or [""])
    assert config.apostrophes == "keep" or "'" not in once
    assert config.numbers == "keep" or not re.search(r"\d", once)
    assert config.punctuation == "keep" or not set(once) & set("-.,|")
    assert config.case == "keep" or getattr(once, config.case)() == once


@given(st.text("aB 5'.`-"))
def test_clean_text_takes_a_short_cut_that_changes_nothing(text: str) -> None:
    for config in EVERY_CONFIG:
        normalize = Normalizer(config)
        normal = normalize(text)
        normalize._clean = re.compile("(?!)")
        assert normalize(text) == normal


def page_examples() -> list[tuple[str, str, str]]:
    """Rows `| text: settings | written | becomes |` of the page."""
    rows = re.findall(r"^\| `(\{.*\})` \| `(.*)` \| `(.*)` \|$", PAGE.read_text("utf-8"), re.M)
    assert len(rows) > 10
    return rows


@pytest.mark.parametrize(("settings", "written", "expected"), page_examples())
def test_examples_of_the_page(settings: str, written: str, expected: str) -> None:
    assert Normalizer(Text(**yaml.safe_load(settings)))(written) == expected


def test_settings_of_the_page_are_valid() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    for tree in map(yaml.safe_load, blocks):
        check(Scale if "datasets" in tree else Experiment, tree, [])


def test_the_config_admits_the_languages_whose_numbers_can_be_spelt() -> None:
    assert set(get_args(Language)) == set(DECIMALS)


@pytest.mark.parametrize("language", DECIMALS)
def test_numbers_of_a_language_are_letters_alone(language: str) -> None:
    sign, _ = DECIMALS[language]
    read = NumberReader(language)
    for number in [*range(120), 999, 1984, 10**6, 987_654_321, 10**12 - 1]:
        assert re.fullmatch(r"[^\W\d_]+(?:[ '\u2019]+[^\W\d_]+)*", read(str(number))), number
    digits = [read(digit) for digit in "305"]
    assert [word for word in read(f"3{sign}05").split() if word in digits] == digits
    assert read("1" * 13) == " ".join([read("1")] * 13)


@pytest.mark.parametrize("language", ORDINAL_ENDINGS)
def test_ordinals_of_a_language(language: str) -> None:
    ending = ORDINAL_ENDINGS[language].split("|")[0]
    assert NumberReader(language)(f"1{ending}") == num2words(1, lang=language, to="ordinal")


def test_a_normalizer_can_be_sent_to_other_processes() -> None:
    normalize = Normalizer(Text(numbers="spell", punctuation="keep"))
    assert pickle.loads(pickle.dumps(normalize))("gate 5!") == normalize("gate 5!") == "GATE FIVE!"


def test_outside_alphabet_names_what_is_missing() -> None:
    assert outside_alphabet("CAF\u00c9 5", "ABCDEF ") == {"\u00c9", "5"}
