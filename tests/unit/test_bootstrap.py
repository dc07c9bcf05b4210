"""Intervals cover over new speakers and seeds, tests see what is there, Holm is the textbook's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lightasr.errors import LightasrError
from lightasr.score.bootstrap import (
    CER,
    WER,
    Interval,
    Sampled,
    Totals,
    holm,
    sampled_difference,
    sampled_rate,
)

PROMISED = (0.93, 0.97)
"""How often a 95 % interval may hold the truth, over simulated test sets."""
SETS = 2000


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def one_system(
    rng: np.random.Generator, speakers: int, seeds: int = 1, seeds_vary: float = 0.0
) -> Totals:
    """A test set of speakers who err at rates around 10 %, and say more or less."""
    rates = rng.beta(4, 36, size=speakers)
    return over_seeds(rng, rates, rng.integers(400, 2000, size=speakers), seeds, seeds_vary)


def over_seeds(
    rng: np.random.Generator,
    rates: np.ndarray,
    words: np.ndarray,
    seeds: int = 1,
    seeds_vary: float = 0.0,
) -> Totals:
    """A system with these rates, trained under seeds that multiply them at random."""
    luck = 1 + seeds_vary * rng.standard_normal((seeds, 1))
    said = np.broadcast_to(words, (seeds, len(words)))
    return Totals(tuple(map(str, range(len(words)))), rng.binomial(said, rates * luck), said)


def two_systems(
    rng: np.random.Generator, speakers: int, seeds: int = 1, seeds_vary: float = 0.0
) -> Sampled:
    """The second errs 5 % less, more or less so for each speaker: the truth is half a point."""
    rates, words = rng.beta(4, 36, size=speakers), rng.integers(400, 2000, size=speakers)
    a = over_seeds(rng, rates, words, seeds, seeds_vary)
    helped = rates * rng.normal(0.95, 0.1, size=speakers)
    b = over_seeds(rng, helped, words, seeds, seeds_vary)
    return a.sampled(1000, seed=1, stream=1) - b.sampled(1000, seed=1, stream=2)


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


@pytest.mark.parametrize("speakers", [40, 73])
def test_students_interval_of_a_rate_holds_the_truth_19_times_in_20(speakers: int) -> None:
    rng = np.random.default_rng(speakers)
    held = [
        holds(one_system(rng, speakers).sampled(1000, seed=1).student(), 0.1) for _ in range(SETS)
    ]
    assert PROMISED[0] <= np.mean(held) <= PROMISED[1]


@pytest.mark.parametrize("speakers", [5, 8, 40])
def test_students_interval_of_a_difference_holds_the_truth_with_few_speakers_too(
    speakers: int,
) -> None:
    rng = np.random.default_rng(speakers)
    held = [holds(two_systems(rng, speakers).student(), 0.005) for _ in range(SETS)]
    assert PROMISED[0] <= np.mean(held) <= PROMISED[1]


def test_percentiles_need_many_speakers() -> None:
    """What docs/scoring.md says of both bootstrap intervals."""
    held = {}
    for speakers in (8, 73):
        rng = np.random.default_rng(speakers)
        sampled = [one_system(rng, speakers).sampled(1000, seed=1) for _ in range(SETS)]
        held[speakers] = [
            np.mean([holds(one.percentile(), 0.1) for one in sampled]),
            np.mean([holds(one.bca(), 0.1) for one in sampled]),
        ]
    assert max(held[8]) < 0.90
    assert PROMISED[0] <= min(held[73]) <= max(held[73]) <= PROMISED[1]


def test_equal_systems_differ_by_students_t_as_often_as_promised() -> None:
    """With eight speakers the bootstrap's p-value finds a difference twice as often."""
    rng = np.random.default_rng(8)
    found = np.zeros((SETS, 2), dtype=bool)
    for trial in range(SETS):
        rates, words = rng.beta(4, 36, size=8), rng.integers(400, 2000, size=8)
        a, b = (
            over_seeds(rng, rates * rng.normal(1, 0.1, size=8), words).sampled(1000, 1, stream)
            for stream in (1, 2)
        )
        difference = a - b
        found[trial] = difference.student_p() < 0.05, difference.p_value() < 0.05
    student, bootstrap = found.mean(axis=0)
    assert 0.03 <= student <= 0.06
    assert bootstrap > 0.09


def test_students_p_is_the_intervals() -> None:
    """It is 5 % where the interval ends at 0."""
    sampled = one_system(np.random.default_rng(1), 8).sampled(100, seed=1)
    at_the_end = Sampled(sampled.value - sampled.student().low, sampled.resampled, sampled.left_out)
    assert at_the_end.student().low == pytest.approx(0)
    assert at_the_end.student_p() == pytest.approx(0.05)


def test_resampling_utterances_does_not_hold_the_truth() -> None:
    """Ten utterances of each of 40 speakers, taken for 400 speakers."""
    rng = np.random.default_rng(1)
    held = []
    for _ in range(SETS):
        words = rng.integers(40, 200, size=400)
        rates = np.repeat(rng.beta(4, 36, size=40), 10)
        held.append(holds(over_seeds(rng, rates, words).sampled(200, seed=1).percentile(), 0.1))
    assert np.mean(held) < 0.75


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.88), (3, 0.90), (5, 0.93)])
def test_seeds_and_speakers_hold_the_truth_of_new_seeds(seeds: int, least: float) -> None:
    rng = np.random.default_rng(seeds)
    held = [
        holds(two_systems(rng, 40, seeds, seeds_vary=0.05).student(), 0.005)
        for _ in range(SETS // 2)
    ]
    assert least <= np.mean(held) <= PROMISED[1]


def test_luck_with_seeds_widens_the_interval() -> None:
    rng = np.random.default_rng(1)
    rates, words = rng.beta(4, 36, size=40), np.full(40, 1000)
    same, lucky = (
        over_seeds(rng, rates, words, 3, vary).sampled(1000, seed=1).student()
        for vary in (0.0, 0.3)
    )
    assert lucky.high - lucky.low > 1.5 * (same.high - same.low)


def test_the_three_intervals_agree_where_speakers_are_many_and_alike() -> None:
    rng = np.random.default_rng(1)
    totals = over_seeds(rng, np.full(400, 0.1), np.full(400, 1000))
    sampled = totals.sampled(4000, seed=1)
    expected = sampled.student()
    for interval in (sampled.percentile(), sampled.bca()):
        assert interval.low == pytest.approx(expected.low, abs=2e-4)
        assert interval.high == pytest.approx(expected.high, abs=2e-4)


def test_students_interval_by_hand() -> None:
    """Three speakers of ten words with 1, 2 and 3 errors: mean 0.2, sd 0.1, t(2) = 4.303."""
    totals = Totals(("a", "b", "c"), np.array([[1, 2, 3]]), np.array([[10, 10, 10]]))
    sampled = totals.sampled(200_000, seed=1)
    interval = sampled.student()
    assert interval.low == pytest.approx(0.2 - 4.303 * 0.1 / 3**0.5, abs=5e-4)
    assert interval.high == pytest.approx(0.2 + 4.303 * 0.1 / 3**0.5, abs=5e-4)
    assert sampled.student(least=0) == Interval(0, interval.high), "no rate is below 0"


def test_equal_speakers_leave_nothing_to_doubt() -> None:
    sampled = Totals(("a", "b"), np.array([[1, 1]]), np.array([[10, 10]])).sampled(100, seed=1)
    for interval in (sampled.percentile(), sampled.bca(), sampled.student()):
        assert (interval.low, interval.high) == pytest.approx((0.1, 0.1))


def test_a_seed_fixes_the_interval() -> None:
    def interval(seed: int) -> Interval:
        found = sampled_rate([errors(speakers(10, 1))], 500, seed)
        assert found is not None
        return found.percentile()

    assert interval(7) == interval(7)
    assert interval(7) != interval(8)


def test_one_speaker_gives_neither_interval_nor_test() -> None:
    table = errors(speakers(1, 1))
    assert sampled_rate([table], 500, seed=1) is None
    assert sampled_difference([table], [table], 500, seed=1) is None


def p_value(a: pd.DataFrame, b: pd.DataFrame, samples: int = 1000) -> float:
    difference = sampled_difference([a], [b], samples, seed=1)
    assert difference is not None
    return difference.p_value()


def test_a_system_does_not_differ_from_itself() -> None:
    table = errors(speakers(20, 1))
    assert p_value(table, table) == 1.0


def test_pairing_finds_a_difference_smaller_than_the_spread_of_speakers() -> None:
    rates = speakers(40, 2)
    better = errors(rates, words=4000, seed=1)
    worse = errors(rates * 1.1, words=4000, seed=2)
    a, b = (sampled_rate([table], 1000, seed=1) for table in (better, worse))
    assert a is not None
    assert b is not None
    assert a.percentile().high > b.percentile().low, "the intervals overlap"
    assert p_value(better, worse) < 0.01
    assert p_value(better, worse) == p_value(worse, better), "the test has two sides"


def test_equal_systems_are_called_different_no_more_often_than_promised() -> None:
    false_alarms = 0
    for trial in range(200):
        rates = speakers(30, trial)
        a, b = errors(rates, seed=2 * trial), errors(rates, seed=2 * trial + 1)
        false_alarms += p_value(a, b, samples=300) < 0.05
    assert false_alarms / 200 < 0.1


def test_three_speakers_cannot_make_a_difference_significant() -> None:
    good, bad = errors(np.full(3, 0.02)), errors(np.full(3, 0.5))
    assert p_value(good, bad) == 0.25
    difference = sampled_difference([good], [bad], 1000, seed=1)
    assert difference is not None
    assert difference.student_p() == 0.25


def test_a_paired_test_needs_the_same_speakers() -> None:
    with pytest.raises(LightasrError, match="only in one: 3"):
        p_value(errors(speakers(4, 1)), errors(speakers(3, 1)))


def test_other_rates_are_resampled_alike() -> None:
    table = errors(speakers(10, 1)).rename(
        columns={"words": "chars", "substitutions": "char_errors"}
    )
    found = sampled_rate([table], 500, 1, CER)
    assert found is not None
    assert found.value == CER.of(table)
    assert found.percentile().low < found.value < found.percentile().high


def test_the_rate_of_several_seeds_is_their_mean() -> None:
    rates = speakers(10, 1)
    tables = [errors(rates, seed=seed) for seed in range(3)]
    found = sampled_rate(tables, 500, 1)
    assert found is not None
    assert found.value == pytest.approx(np.mean([WER.of(table) for table in tables]))


def test_holm_on_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_never_exceeds_one_and_takes_no_tests() -> None:
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
