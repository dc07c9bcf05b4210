"""docs/pretraining.md: it shows what the commands print."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

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


TEST_PARTS = ("wer/test-clean/beam", "wer/test-other/beam")
SHOWN = {
    "sample/ssl_gain": TEST_PARTS,
    "sample/ssl_objectives": TEST_PARTS,
    "sample/ssl_label_budget": TEST_PARTS,
    "sample/bestrq_norm": TEST_PARTS,
    "librispeech-pieces/ssl_gain": ("cer/test/greedy", "wer/test/beam"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_error_rates_are_those_of_the_table(name: str) -> None:
    table = pd.read_csv(ROOT / f"results/tables/{name}.csv", index_col="experiment")
    for row in table.index:
        cells = [
            f"{table.loc[row, f'{column}.{number}']:.1f}"
            for column in SHOWN[name]
            for number in ("mean", "sd")
        ]
        assert f"| `{row}` | {' | '.join(cells)} |" in PAGE


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("sample/ssl_gain", "bestrq"),
        ("librispeech-pieces/ssl_gain", "bestrq"),
        ("sample/bestrq_norm", "time"),
    ],
)
def test_p_values_are_those_of_the_table(name: str, row: str) -> None:
    table = pd.read_csv(ROOT / f"results/tables/{name}.csv", index_col="experiment")
    said = " and ".join(f"{table.loc[row, f'{column}.p']:.2g}" for column in SHOWN[name])
    assert f"(p {said})" in PAGE


def test_what_a_budget_saves_is_in_the_rates_of_its_seeds() -> None:
    rates = pd.read_csv(ROOT / "results/plots/wer/sample/ssl_label_budget.csv")
    rates = rates[(rates["decoder"] == "beam") & (rates["part"] != "dev-clean")]
    wer = rates.set_index(["experiment", "part", "seed"])["wer"]
    minutes = ["2.5", "5", "10", "20"]
    better = sum((wer[f"pretrained-{n}min"] < wer[f"scratch-{n}min"]).sum() for n in minutes)
    assert f"better in {better} of {4 * 2 * 3} comparisons" in PAGE
    mean = wer.groupby(level=["experiment", "part"]).mean()
    for few, many in pairwise(minutes):
        assert (mean[f"pretrained-{few}min"] > mean[f"scratch-{many}min"]).all()
    clean = mean.xs("test-clean", level="part")
    saved = [100 * (1 - clean[f"pretrained-{n}min"] / clean[f"scratch-{n}min"]) for n in minutes]
    assert "by {:.0f}, {:.0f}, {:.0f} and {:.0f} % of the errors".format(*saved) in PAGE


def test_costs_of_mixers_are_those_of_the_table() -> None:
    table = pd.read_csv(ROOT / "results/tables/sample/ssl_mixers.csv", index_col="experiment")
    for name, row in table.iterrows():
        step, saved = row["pretrain_step.mean"], row["pretrain_saved_mb.mean"]
        costs = "| | |" if pd.isna(step) else f"| {step:.2f} | {saved:.0f} |"
        rates = " | ".join(f"{row[f'{column}.mean']:.1f}" for column in TEST_PARTS)
        assert f"| `{name}` {costs} {rates} |" in PAGE
