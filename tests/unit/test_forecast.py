"""What trainings will cost: products by hand, what is shared counted once, hours from a rate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightasr.cost import forecast
from lightasr.cost.forecast import Forecast, forecast_json, forecast_text, foresee_costs
from lightasr.jobs import Job
from lightasr.plan import load_plan
from planning import finish, write_study

HOURS = 1 / 60
"""Of the training part at scale smoke."""
EPOCHS = {"train": 5, "pretrain": 7}
BASE: dict[str, Any] = {
    "model": {"encoder": {"name": "transformer", "dim": 32, "layers": 1, "mixer": "fnet"}},
    "train": {"epochs": EPOCHS["train"]},
}
BESTRQ = {"objective": {"name": "bestrq", "codes": 64}, "train": {"epochs": EPOCHS["pretrain"]}}
HUBERT = {"objective": {"name": "hubert", "clusters": 20}, "train": {"epochs": 2}}
ROWS: dict[str, Any] = {
    "scratch": {},
    "bestrq": {"pretrain": BESTRQ},
    "frozen": {"pretrain": BESTRQ, "finetune": {"frozen": "all"}},
    "hubert": {"pretrain": HUBERT},
    "few": {"corpus": {"label_minutes": 0.25}},
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second to count."""
    monkeypatch.setattr(forecast, "UTTERANCE", 1)


def foreseen(project: Path, tflops: float | None = None, **keys: Any) -> Forecast:
    write_study(project, **{"base": BASE, "experiments": ROWS, "columns": ["params"], **keys})
    return foresee_costs(load_plan(project, "smoke", ["mine"]), tflops)


def test_a_training_does_three_times_the_products_of_its_forward_passes(project: Path) -> None:
    rows = {row.name: row for row in foreseen(project).rows}
    (scratch,) = rows["scratch"].training
    assert scratch.hours == pytest.approx(EPOCHS["train"] * HOURS)
    macs = scratch.work.gmacs_per_s * 1e9 * 3600 * scratch.hours
    assert scratch.pflop == pytest.approx(3 * 2 * macs / 1e15)
    assert scratch.work.gmacs_per_s > 0
    (few,) = rows["few"].training
    assert few.pflop == pytest.approx(0.25 * scratch.pflop), "a quarter is labelled"
    (frozen,) = rows["frozen"].training
    assert frozen.pflop == pytest.approx(scratch.pflop / 3), "no backward pass"


def test_a_pretraining_counts_all_its_iterations(project: Path) -> None:
    rows = {row.name: row for row in foreseen(project).rows}
    assert not rows["scratch"].pretraining
    (bestrq,) = rows["bestrq"].pretraining
    assert bestrq.hours == pytest.approx(EPOCHS["pretrain"] * HOURS)
    first, second = rows["hubert"].pretraining
    assert first.pflop == second.pflop
    assert second.job.inputs["clusters"].inputs["pretrain"] is first.job
    (scratch,) = rows["scratch"].training
    assert bestrq.work.params > scratch.work.params, "it tells codes, not letters"


def test_what_rows_share_is_counted_once(project: Path) -> None:
    found = foreseen(project, seeds=[1, 2])
    assert len(found.trainings) == len(ROWS) + 1 + 2, "one of BEST-RQ, two of HuBERT"
    told = forecast_json(found)
    assert told["pflop"] == pytest.approx(sum(each.pflop for each in found.trainings))
    assert told["device_hours"] is None
    assert "Say --tflops" in forecast_text(found)


def test_hours_follow_from_what_a_device_does_in_a_second(project: Path) -> None:
    found = foreseen(project, tflops=0.5)
    total = sum(each.pflop for each in found.trainings)
    assert found.device_hours(found.trainings) == pytest.approx(1000 * total / 0.5 / 3600)
    assert "s of a device at 0.5 TFLOP/s, as said." in forecast_text(found)


def receipt(
    project: Path, job: Job, seconds: float, processes: int = 1, device: str = "cpu"
) -> None:
    told = json.loads((project / job.receipt).read_text())
    told |= {"training_seconds": seconds, "processes": processes, "device": device}
    (project / job.receipt).write_text(json.dumps(told))


def test_trainings_that_are_done_tell_the_rate(project: Path) -> None:
    """Three of a like model: the median counts; all processes of a training do."""
    unlike = {f"r{n}": {"train": {"lr": n}} for n in (1, 2, 3, 4)}
    before = foreseen(project, experiments=unlike)
    jobs = [row.training[0].job for row in before.rows]
    finish(load_plan(project, "smoke", ["mine"]), jobs[:3])
    for job, seconds, processes in zip(jobs, (50, 10, 100), (2, 1, 4), strict=False):
        receipt(project, job, seconds, processes)
    found = foreseen(project, experiments=unlike)
    last = found.rows[3].training
    assert found.device_hours(last) == pytest.approx(100 / 3600)
    assert [row.training[0].took for row in found.rows] == pytest.approx(
        [100 / 3600, 10 / 3600, 400 / 3600, None]
    )
    assert "as on cpu" in forecast_text(found)


def test_the_rate_is_that_of_the_fastest_device(project: Path) -> None:
    """Hours of a laptop, which may have tried a row, would say nothing of a GPU's."""
    rows = {f"r{n}": {"train": {"lr": n}} for n in (1, 2, 3, 4)}
    jobs = [row.training[0].job for row in foreseen(project, experiments=rows).rows]
    finish(load_plan(project, "smoke", ["mine"]), jobs[:3])
    for job, seconds, device in zip(jobs, (400, 400, 2), ("cpu", "cpu", "H200"), strict=False):
        receipt(project, job, seconds, device=device)
    found = foreseen(project, experiments=rows)
    assert found.device_hours(found.rows[3].training) == pytest.approx(2 / 3600)
    assert found.rates["H200"] == pytest.approx(200 * found.rates["cpu"])
    assert "as on H200" in forecast_text(found)


def test_memory_grows_with_the_batch(project: Path) -> None:
    rows = {"small": {}, "large": {"train": {"batch_seconds": 300}}}
    small, large = (row.training[0] for row in foreseen(project, experiments=rows).rows)
    more = 300 - small.job.config["train"]["batch_seconds"]
    grown = large.memory_gb - small.memory_gb
    assert grown == pytest.approx(more * small.work.saved_bytes_per_s / 1e9)


def test_the_table_fits_a_terminal(project: Path) -> None:
    text = forecast_text(foreseen(project, tflops=0.5))
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[3].split() == [
        *("experiment", "params", "GMAC/s", "pretraining", "training", "memory")
    ]
