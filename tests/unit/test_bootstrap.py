"""Speaker-block intervals cover, paired tests see what is there, Holm corrects as in textbooks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lightasr.errors import LightasrError
from lightasr.score.bootstrap import CER, holm, paired_bootstrap, speaker_interval


def errors(
    rates: np.ndarray, words: int = 400, per_speaker: int = 10, seed: int = 0
) -> pd.DataFrame:
    """Utterances of speakers who err at the given rates."""
    rng = np.random.default_rng(seed)
    each = words // per_speaker
    rows = [
        (f"{speaker}-{n}", str(speaker), each, rng.binomial(each, rate), 0, 0)
        for speaker, rate in enumerate(rates)
        for n in range(per_speaker)
    ]
    columns = ["id", "speaker", "words", "substitutions", "insertions", "deletions"]
    return pd.DataFrame(rows, columns=columns)


def speakers(count: int, seed: int) -> np.ndarray:
    """Speakers differ: error rates around 10 %."""
    return np.random.default_rng(seed).beta(4, 36, size=count)


def test_the_interval_covers_the_true_rate_nineteen_times_in_twenty() -> None:
    covered = 0
    for trial in range(300):
        interval = speaker_interval(errors(speakers(40, trial), seed=trial), samples=400, seed=1)
        assert interval is not None
        covered += interval.low <= 0.1 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_resampling_utterances_instead_would_be_overconfident() -> None:
    by_speaker = errors(speakers(20, 3))
    by_utterance = by_speaker.assign(speaker=by_speaker["id"])
    wide = speaker_interval(by_speaker, 1000, seed=1)
    narrow = speaker_interval(by_utterance, 1000, seed=1)
    assert wide is not None
    assert narrow is not None
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_seed_fixes_the_interval() -> None:
    table = errors(speakers(10, 1))
    assert speaker_interval(table, 500, seed=7) == speaker_interval(table, 500, seed=7)
    assert speaker_interval(table, 500, seed=7) != speaker_interval(table, 500, seed=8)


def test_one_speaker_gives_neither_interval_nor_test() -> None:
    table = errors(speakers(1, 1))
    assert speaker_interval(table, 500, seed=1) is None
    assert paired_bootstrap(table, table, 500, seed=1) is None


def test_a_system_does_not_differ_from_itself() -> None:
    table = errors(speakers(20, 1))
    assert paired_bootstrap(table, table, 1000, seed=1) == 1.0


def test_pairing_finds_a_difference_smaller_than_the_spread_of_speakers() -> None:
    rates = speakers(40, 2)
    better = errors(rates, words=4000, seed=1)
    worse = errors(rates * 1.1, words=4000, seed=2)
    a, b = speaker_interval(better, 1000, seed=1), speaker_interval(worse, 1000, seed=1)
    assert a is not None
    assert b is not None
    assert a.high > b.low, "the intervals overlap"
    p = paired_bootstrap(better, worse, 1000, seed=1)
    assert p is not None
    assert p < 0.01
    assert p == paired_bootstrap(worse, better, 1000, seed=1), "the test has two sides"


def test_equal_systems_are_called_different_no_more_often_than_promised() -> None:
    false_alarms = 0
    for trial in range(200):
        rates = speakers(30, trial)
        a, b = errors(rates, seed=2 * trial), errors(rates, seed=2 * trial + 1)
        p = paired_bootstrap(a, b, samples=300, seed=1)
        false_alarms += p is not None and p < 0.05
    assert false_alarms / 200 < 0.1


def test_three_speakers_cannot_make_a_difference_significant() -> None:
    good, bad = errors(np.full(3, 0.02)), errors(np.full(3, 0.5))
    assert paired_bootstrap(good, bad, 1000, seed=1) == 0.25


def test_a_paired_test_needs_the_same_speakers() -> None:
    with pytest.raises(LightasrError, match="only in one: 3"):
        paired_bootstrap(errors(speakers(4, 1)), errors(speakers(3, 1)), 100, seed=1)


def test_other_rates_are_resampled_alike() -> None:
    table = errors(speakers(10, 1)).rename(
        columns={"words": "chars", "substitutions": "char_errors"}
    )
    interval = speaker_interval(table, 500, 1, CER)
    assert interval is not None
    assert interval.low < CER.of(table) < interval.high


def test_holm_on_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_never_exceeds_one_and_takes_no_tests() -> None:
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
