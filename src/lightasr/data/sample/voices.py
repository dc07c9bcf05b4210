"""The synthesiser's voices that sound like people, dealt out so that no two parts share one.

A voice is a variant (throat, sex) with an accent, a pitch, a pitch range and a rate. The variants
were chosen by measured harmonicity, level and spectrum: whispers, robots, croaks and chipmunks are
left out, and variants with nearly the same spectrum stay in the same part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

Sex = Literal["F", "M"]

ACCENTS = (
    "en-US",
    "en",
    "en-US-nyc",
    "en-GB-x-rp",
    "en-029",
    "en-GB-scotland",
    "en-GB-x-gbclan",
    "en-GB-x-gbcwmd",
)

# One sex after the other where both last, so that a few speakers are mixed already.
VARIANTS: dict[str, dict[Sex, tuple[str, ...]]] = {
    "train-clean-100": {
        "F": ("f2", "f3", "steph", "Alicia", "shelby", "grandma", "f5", "steph3"),
        "M": (
            *(
                "m3",
                "Diogo",
                "Michael",
                "robert",
                "m5",
                "adam",
                "iven3",
                "norbert",
                "miguel",
                "Mario",
            ),
            *(
                "john",
                "marcelo",
                "max",
                "travis",
                "Hugo",
                "david",
                "antonio",
                "m1",
                "pablo",
                "iven4",
            ),
            *("gustave", "m8", "kaukovalta", "pedro"),
        ),
    },
    "dev-clean": {"F": ("f4", "aunty"), "M": ("Alex", "paul", "quincy", "m6")},
    "test-clean": {
        "F": ("linda", "Annie", "belinda"),
        "M": ("Denis", "m7", "Andy", "victor", "Nguyen"),
    },
    "test-other": {
        "F": ("f1", "anika", "Andrea"),
        "M": ("Gene", "ed", "Lee", "boris", "Gene2"),
    },
}

# Heard in the background of test-other only.
BABBLE_VARIANTS = ("ian", "Storm", "Reed", "edward", "mike2", "Marco")


@dataclass(frozen=True)
class Voice:
    """How a speaker sounds; the numbers are the synthesiser's own, its defaults 50, 50 and 175."""

    variant: str
    accent: str
    sex: Sex
    pitch: int
    pitch_range: int
    words_per_minute: int

    @property
    def espeak_name(self) -> str:
        return f"{self.accent}+{self.variant}"


def deal_voices(part: str, count: int, rng: Random) -> list[Voice]:
    """The first `count` voices of a part; past its variants they come again with another accent."""
    variants = _alternate(part)
    return [
        Voice(
            variant=variants[i % len(variants)][1],
            accent=ACCENTS[(i + i // len(variants)) % len(ACCENTS)],
            sex=variants[i % len(variants)][0],
            pitch=rng.randint(38, 62),
            pitch_range=rng.randint(35, 65),
            words_per_minute=rng.randint(150, 195),
        )
        for i in range(count)
    ]


def babble_voices(rng: Random) -> list[Voice]:
    """The people who talk in the background."""
    return [
        Voice(variant, rng.choice(ACCENTS), "M", rng.randint(45, 70), 50, rng.randint(150, 195))
        for variant in BABBLE_VARIANTS
    ]


def _alternate(part: str) -> list[tuple[Sex, str]]:
    """The variants of a part, women and men in turn while there are both."""

    def ranked() -> Iterator[tuple[int, Sex, str]]:
        for sex, names in VARIANTS[part].items():
            yield from ((place, sex, name) for place, name in enumerate(names))

    return [(sex, name) for _, sex, name in sorted(ranked())]
