"""The study `mixers` compares encoders of equal size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightasr import schema
from lightasr.models.asr import AcousticModel
from lightasr.plan import load_plan

ROOT = Path(__file__).parents[2]


def test_all_rows_have_as_many_parameters_and_every_mixer_has_one() -> None:
    plan = load_plan(ROOT, "sample", ["mixers"])
    sizes, mixers = {}, set()
    for experiment in plan.experiments:
        model = experiment.config.model
        mixers.add(getattr(model.encoder, "mixer", schema.Component()).name)
        with torch.device("meta"):  # nothing to draw
            sizes[experiment.name] = AcousticModel(model, 40, 29).parameter_count()
    assert mixers >= set(schema.MIXERS)
    assert sizes == {name: pytest.approx(sizes["mhsa"], rel=0.01) for name in sizes}
