"""`lightasr bench encoders`: what its table, grid and picture hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightasr import cli
from lightasr.bench import encoders
from lightasr.cost import lengths
from lightasr.cost.lengths import Point
from lightasr.errors import LightasrError
from lightasr.plan import Experiment, load_plan
from lightasr.schema import Measure
from planning import write_study

ROWS = {
    "ligru": {"model": {"encoder": {"name": "ds2", "unit": "ligru"}}},
    "mhsa": {"model": {"encoder": {"name": "transformer"}}},
}


@pytest.fixture
def experiments(project: Path) -> list[Experiment]:
    """Two rows of tiny models."""
    write_study(project, "mixers", experiments=ROWS)
    return list(load_plan(project, "smoke", ["mixers"]).experiments)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call a sample, one second to count."""
    monkeypatch.setattr(lengths, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(lengths, "COUNTED_SECONDS", 1)


@pytest.mark.usefixtures("short")
def test_every_encoder_is_measured_at_every_length(experiments: list[Experiment]) -> None:
    found = encoders.measure_encoders(experiments, "cpu", Measure(seconds=(1, 2, 4), rounds=1))
    assert [(p.model, p.seconds) for p in found.points] == [
        (name, seconds) for seconds in (1, 2, 4) for name in ROWS
    ]
    assert all(p.forward_ms > 0 and p.train_ms > 0 and p.saved_mb > 0 for p in found.points)
    assert [row["experiment"] for row in found.rows] == list(ROWS)
    of = {(p.model, p.seconds): p for p in found.points}
    row = found.rows[0]
    assert row["train_of_mhsa"] == of["ligru", 2].train_ms / of["mhsa", 2].train_ms
    assert row["rtfx"] == 2000 / of["ligru", 2].forward_ms
    assert row["saved_mb"] == of["ligru", 2].saved_mb
    assert "peak_mb" not in row  # nobody can measure it without a GPU

    for said in ("inference, at 2 s", "over that of `mhsa`, at 2 s", "at 1, 2, 4 s"):
        assert said in found.note

    svg = encoders.figure(found.points)
    assert all(name in svg for name in ROWS)


@pytest.mark.usefixtures("short")
def test_the_command_writes_rows_grid_table_and_picture(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(project, "mixers", experiments=ROWS)
    monkeypatch.chdir(project)
    points = [Point(name, t, t, 3.0 * t, t, None) for t in (5, 10) for name in ROWS]
    measured: dict[str, object] = {}

    def measure(experiments: list[Experiment], on: str, how: Measure) -> encoders.Found:
        measured.update(names=[e.name for e in experiments], on=on)
        return encoders.Found([{"experiment": "mhsa"}], points, {"device": on}, "What it means.")

    monkeypatch.setattr(encoders, "measure_encoders", measure)
    cli.bench_encoders(scale="smoke")
    assert measured == {"names": list(ROWS), "on": "cpu"}
    out = project / "results" / "bench" / "encoders-cpu.json"
    tree = json.loads(out.read_text())
    assert (tree["machine"]["study"], tree["machine"]["scale"]) == ("mixers", "smoke")
    assert tree["rows"] == [{"experiment": "mhsa"}]
    assert tree["grid"][2] == {
        **{"model": "ligru", "seconds": 10, "forward_ms": 10, "train_ms": 30.0},
        **{"saved_mb": 10, "peak_mb": None, "rtfx": 1000.0},
    }
    table = out.with_suffix(".md").read_text()
    assert table == capsys.readouterr().out
    assert "What it means." in table
    assert out.with_suffix(".svg").read_text().startswith("<svg")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_nothing_is_measured_or_written(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(project, "mixers", experiments=ROWS)
    monkeypatch.chdir(project)
    with pytest.raises(LightasrError, match="bench encoders: no CUDA device is here"):
        cli.bench_encoders("cuda", scale="smoke")
    assert not (project / "results").exists()
