"""`lightasr bench units`: widths of equal time, and what the study says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lightasr.bench.units import equal_time

PROJECT = Path(__file__).parents[2]


def power(width: int) -> float:
    """A unit whose step takes as long as `lstm`'s at 150 states."""
    return (width / 150) ** 1.5


@pytest.mark.parametrize("widths", [(100, 200), (100, 120), (200, 300), (160, 120, 40, 600)])
def test_the_width_of_equal_time_follows_from_widths_on_either_side_or_near(
    widths: tuple[int, ...],
) -> None:
    assert equal_time([(width, power(width)) for width in widths]) == 150


@pytest.mark.parametrize(
    "measured", [[(120, 1.0)], [(120, 0.8), (120, 0.8)], [(120, 1.1), (150, 0.9)]]
)
def test_one_width_or_a_contradiction_gives_none(measured: list[tuple[int, float]]) -> None:
    assert equal_time(measured) is None


def test_the_timed_rows_of_the_study_were_measured_to_take_lstms_time() -> None:
    study = yaml.safe_load((PROJECT / "config/studies/recurrent_units.yaml").read_text())
    measured = json.loads((PROJECT / "results/bench/units.json").read_text())
    assert (measured["machine"]["scale"], measured["machine"]["threads"]) == ("sample", 1)
    rows = {row["experiment"]: row for row in measured["rows"]}
    assert set(rows) == set(study["experiments"])
    units = {name for name in study["experiments"] if "_" not in name} | {"parallel_lstm"}
    for unit in units - {"lstm"}:
        assert rows[f"{unit}_timed"]["time_of_lstm"] == pytest.approx(1, abs=0.1)
        assert (
            rows[f"{unit}_timed"]["dim"]
            == (study["experiments"][f"{unit}_timed"]["model"]["encoder"]["dim"])
        )
