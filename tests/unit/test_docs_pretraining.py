"""docs/pretraining.md: it shows what the commands print."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
