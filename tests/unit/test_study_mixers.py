"""The studies of mixers compare encoders of equal size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightasr.models.asr import AcousticModel
from lightasr.plan import load_plan

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("study", "scale"),
    [
        *((study, "sample") for study in ("mixers", "conformers", "streaming", "ssl_mixers")),
        ("ssl_mixers_large", "librispeech-960"),
    ],
)
def test_all_rows_have_as_many_parameters(study: str, scale: str) -> None:
    plan = load_plan(ROOT, scale, [study])
    sizes = {}
    for experiment in plan.experiments:
        with torch.device("meta"):  # nothing to draw
            model = AcousticModel(experiment.config.model, experiment.config.features.dim, 29)
        sizes[experiment.name] = model.parameter_count()
    assert sizes == {name: pytest.approx(sizes["mhsa"], rel=0.01) for name in sizes}
