"""docs/pretraining.md: it shows what the commands print."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from lightasr.cost.forecast import forecast_text, foresee_costs
from lightasr.plan import load_plan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pretraining.md").read_text(encoding="utf-8")


def test_forecasts_are_those_of_the_command() -> None:
    """Of two rows; counting the others as well takes its time."""
    plan = load_plan(ROOT, "librispeech-960", ["ssl_mixers_large"])
    (study,) = plan.studies
    chosen = [e for e in study.experiments if e.name in ("mhsa", "summarymixing")]
    few = replace(plan, studies=(replace(study, experiments=tuple(chosen)),))
    said = forecast_text(foresee_costs(few))
    shown = [line.split() for line in PAGE.splitlines()]
    rows = [line for line in said.splitlines() if line.startswith(("mhsa", "summarymixing"))]
    assert len(rows) == 2
    for row in rows:
        assert row.split() in shown


def test_error_rates_are_those_of_the_table() -> None:
    table = pd.read_csv(ROOT / "results/tables/sample/ssl_objectives.csv", index_col="experiment")
    for name in table.index:
        row = table.loc[name]
        cells = [
            f"{row[f'wer/{part}/beam.{number}']:.1f}"
            for part in ("test-clean", "test-other")
            for number in ("mean", "sd")
        ]
        assert f"| `{name}` | {' | '.join(cells)} |" in PAGE
