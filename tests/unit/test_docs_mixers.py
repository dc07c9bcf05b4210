"""What docs/mixers.md says of error rates and training steps stands in the studies' tables."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


def test_the_numbers_of_both_studies_are_those_of_their_tables() -> None:
    tables = [
        pd.read_csv(ROOT / "results" / "tables" / "sample" / f"{study}.csv", index_col=0)
        for study in ("mixers", "conformers")
    ]
    text = (ROOT / "docs" / "mixers.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]*) ?\| ([\d.]*) ?\|$", text, re.M
    )
    assert len(rows) == 10
    for name, *told in rows:
        for table, (wer, step) in zip(tables, (told[:2], told[2:]), strict=True):
            if wer:
                found = table.loc[name]
                assert float(wer) == pytest.approx(found["wer/test-other/beam.mean"], abs=0.0501)
                assert float(step) == pytest.approx(found["train_step.mean"], abs=0.00501)
