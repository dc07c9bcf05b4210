"""Reads numbers out: digits become the words of a language."""

from __future__ import annotations

import re
from functools import lru_cache

from num2words import num2words

# The sign before decimals, and how it is read, in the languages whose words num2words gets right.
DECIMALS = {
    "ca": (",", "coma"),
    "cs": (",", "celá"),
    "da": (",", "komma"),
    "de": (",", "Komma"),
    "en": (".", "point"),
    "es": (",", "coma"),
    "fi": (",", "pilkku"),
    "fr": (",", "virgule"),
    "hu": (",", "egész"),
    "id": (",", "koma"),
    "is": (",", "komma"),
    "it": (",", "virgola"),
    "lt": (",", "kablelis"),
    "lv": (",", "komats"),
    "nl": (",", "komma"),
    "no": (",", "komma"),
    "pl": (",", "przecinek"),
    "pt": (",", "vírgula"),
    "pt_BR": (",", "vírgula"),
    "ro": (",", "virgulă"),
    "ru": (",", "запятая"),
    "sk": (",", "celých"),
    "sl": (",", "celih"),
    "sv": (",", "komma"),
    "tr": (",", "virgül"),
    "uk": (",", "кома"),
}
# What makes digits an ordinal, where this form tells all of the word (French `1re` does not); the
# raised letters of Spanish and Italian are plain ones by now.
ORDINAL_ENDINGS = {
    "en": "st|nd|rd|th",
    "es": "o",
    "fr": "er|e|eme|ème",
    "it": "o",
    "nl": "e|de|ste",
    "pt": "o",
    "pt_BR": "o",
}
# Longer ones are accounts and telephones rather than quantities.
LONGEST_QUANTITY = 12


class NumberReader:
    """Writes the numbers of a text as words: quantities, ordinals and decimals.

    Digits that are no quantity (`007`, an account) are read one by one; numbers with signs between
    them, such as a date, are read one after the other.
    """

    def __init__(self, language: str) -> None:
        sign, self._point = DECIMALS[language]
        self._language = language
        self._number = _number(sign, ORDINAL_ENDINGS.get(language))

    def __call__(self, text: str) -> str:
        return self._number.sub(self._read, text)

    def _read(self, found: re.Match[str]) -> str:
        """The words, apart from letters on either side."""
        text, start, end = found.string, found.start(), found.end()
        before = " " if text[start - 1 : start].isalnum() else ""
        after = " " if text[end : end + 1].isalnum() else ""
        digits = re.sub(r"\D", "", found["whole"] or found["in_a_row"])
        words = _spell(digits, self._language, ordinal=found["ending"] is not None)
        if found["decimals"]:
            words = f"{words} {self._point} {_one_by_one(found['decimals'], self._language)}"
        return before + words + after


def _number(sign: str, ending: str | None) -> re.Pattern[str]:
    """What is read as one number, where `sign` stands before decimals."""
    group = "," if sign == "." else "[. ]"
    ordinal = rf"(?P<ending>{ending})(?![^\W_])" if ending else r"(?P<ending>(?!))"
    return re.compile(
        rf"""
        (?<!\d[.,])
        (?P<whole>(?!0)\d{{1,3}}(?:{group}\d{{3}})+|\d+)
        (?:[{sign}](?P<decimals>\d+)|{ordinal})?
        (?![.,]?\d)
        |(?P<in_a_row>\d+)
        """,
        re.IGNORECASE | re.VERBOSE,
    )


@lru_cache(maxsize=1 << 16)
def _spell(digits: str, language: str, ordinal: bool) -> str:
    if len(digits) > LONGEST_QUANTITY or (len(digits) > 1 and int(digits[0]) == 0):
        return _one_by_one(digits, language)
    words: str = num2words(int(digits), lang=language, to="ordinal" if ordinal else "cardinal")
    return re.sub(r"[-,]", " ", words)


def _one_by_one(digits: str, language: str) -> str:
    return " ".join(_spell(digit, language, ordinal=False) for digit in digits)
