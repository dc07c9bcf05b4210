"""What DVC shows of a study."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from results_on_disk import DIGEST, make_run

from lightasr.score.metrics import write_curves, write_error_rates, write_metrics
from lightasr.score.study import Row, SeedRun, StudyTable

ONE_OF_TWO = [("u1", "s1", "HELLO WORLD", "HELLO WORD")]
NONE_OF_TWO = [("u1", "s1", "HELLO WORLD", "HELLO WORLD")]
ABSENT = Path("absent")


@pytest.fixture
def table(tmp_path: Path) -> StudyTable:
    """Two seeds of an experiment, of which the second is better, and one that is not there yet."""
    runs = (
        make_run(tmp_path, "lstm", 1, {"test-clean.greedy": ONE_OF_TWO}),
        make_run(tmp_path, "lstm", 2, {"test-clean.greedy": NONE_OF_TWO}),
        SeedRun(3, ABSENT, ABSENT, ABSENT),
    )
    return StudyTable("T", "study", "smoke", ("params",), (Row("lstm", runs),), DIGEST)


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_metrics_are_means_over_the_seeds_that_are_there(table: StudyTable, tmp_path: Path) -> None:
    out = tmp_path / "metrics" / "study.json"
    write_metrics(table, out)
    assert json.loads(out.read_text()) == {"lstm": {"wer": {"test-clean": {"greedy": 25.0}}}}


def test_the_plot_of_error_rates_has_every_seed(table: StudyTable, tmp_path: Path) -> None:
    out = tmp_path / "wer" / "study.csv"
    write_error_rates(table, out)
    assert [(line["seed"], float(line["wer"])) for line in read_csv(out)] == [("1", 50), ("2", 0)]


def test_the_plot_of_learning_curves_has_every_epoch(table: StudyTable, tmp_path: Path) -> None:
    out = tmp_path / "curves" / "study.csv"
    write_curves(table, out)
    lines = read_csv(out)
    assert [(line["experiment"], line["seed"], line["epoch"]) for line in lines] == [
        ("lstm", "1", "1"),
        ("lstm", "2", "1"),
    ]
