"""Tails and quantiles are those of printed tables."""

from __future__ import annotations

import pytest

from lightasr.score.distributions import coin_p, normal_p, student_quantile


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (7, 2.365), (8, 2.306), (120, 1.980)]
)
def test_students_quantiles_are_the_tables(freedom: int, t: float) -> None:
    assert student_quantile(0.95, freedom) == pytest.approx(t, abs=5e-4)


def test_normal_tails_are_the_tables() -> None:
    assert normal_p(1.959964) == pytest.approx(0.05, abs=1e-6)
    assert normal_p(-2.575829) == pytest.approx(0.01, abs=1e-6)
    assert normal_p(0) == 1


@pytest.mark.parametrize(
    ("heads", "tails", "p"),
    [(0, 5, 2 / 32), (1, 5, 14 / 64), (5, 1, 14 / 64), (3, 3, 1), (0, 0, 1)],
)
def test_coins_are_counted_out(heads: int, tails: int, p: float) -> None:
    assert coin_p(heads, tails) == p


def test_many_tosses_neither_overflow_nor_take_long() -> None:
    assert coin_p(4000, 6000) < 1e-80
