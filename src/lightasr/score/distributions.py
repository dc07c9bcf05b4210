"""Tail probabilities and quantiles that the tests of significance need."""

from __future__ import annotations

import math
from functools import cache


def normal_p(z: float) -> float:
    """The two-sided p-value of a standard normal statistic: P(|N| >= |z|)."""
    return math.erfc(abs(z) / math.sqrt(2))


def coin_p(heads: int, tails: int) -> float:
    """The two-sided exact p-value that a coin is fair: 2 P(X <= min(heads, tails)), at most 1."""
    tosses = heads + tails
    if heads == tails:
        return 1.0
    ways = total = 1
    for count in range(1, min(heads, tails) + 1):
        ways = ways * (tosses - count + 1) // count
        total += ways
    return min(1.0, 2 * (total / 2**tosses))


@cache
def student_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| <= t) = confidence, for Student's T with this many degrees of freedom."""
    low, high = 0.0, 1.0
    while student_within(high, freedom) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if student_within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_within(t: float, freedom: int) -> float:
    """P(|T| <= t) as a finite sum (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for power in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
