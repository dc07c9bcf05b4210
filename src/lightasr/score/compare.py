"""`lightasr compare`: whether two systems differ on the same utterances, by the field's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from lightasr.errors import LightasrError
from lightasr.score.bootstrap import WER, Sampled, name_some, sampled_difference
from lightasr.score.detail import BOOTSTRAP_SAMPLES, BOOTSTRAP_SEED, EDITS, speakers
from lightasr.score.detail_text import points
from lightasr.score.distributions import coin_p
from lightasr.score.mapsswe import SegmentTest, matched_pairs_test
from lightasr.score.wer import check_same_utterances, utterance_errors


@dataclass(frozen=True)
class SignTest:
    """How many of the pairs each system wins, and the p-value of a fair coin doing so."""

    pairs: int
    a_better: int
    b_better: int
    p: float

    @property
    def equal(self) -> int:
        return self.pairs - self.a_better - self.b_better


@dataclass(frozen=True)
class Comparison:
    """System A against system B; differences are A less B, so positive means that B is better."""

    names: tuple[str, str]
    utterances: int
    speakers: int
    """0 where they are not known."""
    words: int
    wer: tuple[float, float]
    segments: SegmentTest
    sentences: SignTest
    by_speaker: SignTest | None
    difference: Sampled | None
    """Over speakers; None with one, or where they are not known."""

    @property
    def better(self) -> str | None:
        """The system with fewer errors, whether or not a test tells them apart."""
        a, b = self.wer
        return None if a == b else self.names[a > b]


def compare(decoded_a: pd.DataFrame, decoded_b: pd.DataFrame, names: tuple[str, str]) -> Comparison:
    """All tests; both tables hold the same utterances, with the same references."""
    decoded_b = _aligned(decoded_a, decoded_b, names)
    a, b = utterance_errors(decoded_a), utterance_errors(decoded_b)
    known = bool(speakers(a))
    return Comparison(
        names=names,
        utterances=len(a),
        speakers=a["speaker"].nunique() if known else 0,
        words=int(a["words"].sum()),
        wer=(WER.of(a), WER.of(b)),
        segments=matched_pairs_test(decoded_a, decoded_b),
        sentences=mcnemar_test(_edits(a), _edits(b)),
        by_speaker=speaker_sign_test(a, b) if known else None,
        difference=sampled_difference([a], [b], BOOTSTRAP_SAMPLES, BOOTSTRAP_SEED),
    )


def mcnemar_test(errors_a: Sequence[int], errors_b: Sequence[int]) -> SignTest:
    """McNemar's exact test on sentences: of those that only one system got all right, how many?

    With a sentences right in A alone and b in B alone,

        p = 2 P(X <= min(a, b)),  X binomial over a + b tosses of a fair coin.
    """
    right = [(a == 0, b == 0) for a, b in zip(errors_a, errors_b, strict=True)]
    only_a = sum(a and not b for a, b in right)
    only_b = sum(b and not a for a, b in right)
    return SignTest(len(right), only_a, only_b, coin_p(only_a, only_b))


def speaker_sign_test(errors_a: pd.DataFrame, errors_b: pd.DataFrame) -> SignTest:
    """The sign test on speakers: for how many has A the lower word error rate?"""
    a, b = ({group.name: group for group in speakers(errors)} for errors in (errors_a, errors_b))
    return sign_test([a[name].wer for name in a], [b[name].wer for name in a])


def sign_test(rates_a: Sequence[float], rates_b: Sequence[float]) -> SignTest:
    """The sign test on pairs of rates, the lower of which is better.

    With a pairs won by A, b by B and e equal, of which each gets half (NIST's way),

        p = 2 P(X <= m),  m = min(a, b) + e / 2, rounded up,
        X binomial over a + b + e tosses of a fair coin.
    """
    wins_a = sum(a < b for a, b in zip(rates_a, rates_b, strict=True))
    wins_b = sum(a > b for a, b in zip(rates_a, rates_b, strict=True))
    pairs = len(rates_a)
    fewer = min(min(wins_a, wins_b) + (pairs - wins_a - wins_b + 1) // 2, pairs // 2)
    return SignTest(pairs, wins_a, wins_b, coin_p(fewer, pairs - fewer))


def comparison_json(found: Comparison) -> dict[str, Any]:
    """All numbers for programs; rates are fractions, differences A less B."""
    a, b = found.names
    difference = found.difference
    return {
        "a": {"name": a, "wer": found.wer[0]},
        "b": {"name": b, "wer": found.wer[1]},
        "better": None if found.better is None else "ab"[found.wer[0] > found.wer[1]],
        "utterances": found.utterances,
        "speakers": found.speakers or None,
        "words": found.words,
        "mapsswe": asdict(found.segments),
        "mcnemar": asdict(found.sentences),
        "sign": asdict(found.by_speaker) if found.by_speaker else None,
        "difference": None
        if difference is None
        else {
            "value": difference.value,
            "student": asdict(difference.student()),
            "student_p": difference.student_p(),
            "bca": asdict(difference.bca()),
            "percentile": asdict(difference.percentile()),
            "bootstrap_p": difference.p_value(),
            "samples": len(difference.resampled),
        },
    }


def comparison_text(found: Comparison) -> str:
    """The numbers for a person, in 80 columns."""
    who = f" of {found.speakers} speakers" if found.speakers else ""
    lines = [f"{found.utterances:,} utterances{who}, {found.words:,} words"]
    for letter, name, wer in zip("AB", found.names, found.wer, strict=True):
        lines.append(f"  {letter}  WER {100 * wer:6.2f} %  {name}")
    a, b = (100 * wer for wer in found.wer)
    worse = max(a, b)
    lines.append(
        "A and B have the same WER."
        if a == b
        else f"{'A' if a < b else 'B'} is better by {abs(a - b):.2f} points, "
        f"{100 * abs(a - b) / worse:.1f} % of {worse:.2f}."
    )
    header = f"{'test':<22}{'over':<20}{'A better':>9}{'B better':>9}{'equal':>8}{'p':>8}"
    lines += ["", header, *_test_lines(found), ""]
    if found.difference is None:
        lines.append("No interval: it needs two or more speakers; --speakers UTT2SPK names them.")
    else:
        lines += _interval_lines(found.difference)
    if found.segments.rough:
        lines.append(f"MAPSSWE has only {found.segments.segments} segments: its p is a rough one.")
    return "\n".join(lines)


def _test_lines(found: Comparison) -> list[str]:
    segments = found.segments
    equal = segments.segments - segments.a_better - segments.b_better
    z = "" if segments.z is None else f" (z {segments.z:.3f})"
    lines = [
        _line(
            f"MAPSSWE{z}",
            f"{segments.segments:,} segments",
            (segments.a_better, segments.b_better, equal),
            segments.p,
        )
    ]
    tests = [("McNemar", "sentences", found.sentences), ("sign", "speakers", found.by_speaker)]
    for name, unit, test in tests:
        if test is not None:
            counts = (test.a_better, test.b_better, test.equal)
            lines.append(_line(name, f"{test.pairs:,} {unit}", counts, test.p))
    if found.difference is not None:
        over = f"{found.speakers:,} speakers"
        lines.append(_line("Student's t", over, None, found.difference.student_p()))
        lines.append(_line("bootstrap", over, None, found.difference.p_value()))
    return lines


def _line(name: str, over: str, counts: tuple[int, int, int] | None, p: float | None) -> str:
    a, b, equal = (f"{count:,}" for count in counts) if counts else ("", "", "")
    return f"{name:<22}{over:<20}{a:>9}{b:>9}{equal:>8}{_p_text(p):>8}"


def _p_text(p: float | None) -> str:
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _interval_lines(difference: Sampled) -> list[str]:
    intervals = {
        "Student's t": difference.student(),
        "bootstrap, BCa": difference.bca(),
        "bootstrap, percentile": difference.percentile(),
    }
    return [
        f"WER of A less that of B: {100 * difference.value:.2f} points; "
        "95 % intervals over speakers:",
        *(f"  {name:<22}{points(interval)}" for name, interval in intervals.items()),
    ]


def _aligned(
    decoded_a: pd.DataFrame, decoded_b: pd.DataFrame, names: tuple[str, str]
) -> pd.DataFrame:
    """The second table in the order of the first; both must speak of the same."""
    check_same_utterances(decoded_a, decoded_b, *names)
    ordered = decoded_b.set_index("id").loc[list(decoded_a["id"])].reset_index()
    for column in ("reference", "speaker"):
        changed = decoded_a["id"][(ordered[column] != decoded_a[column].to_numpy()).to_numpy()]
        if len(changed):
            raise LightasrError(
                f"{names[0]} and {names[1]}: another {column} of {name_some(list(changed))}"
            )
    return ordered


def _edits(errors: pd.DataFrame) -> list[int]:
    return [int(count) for count in errors[list(EDITS)].sum(axis=1)]
