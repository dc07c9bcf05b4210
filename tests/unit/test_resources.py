"""What jobs are foreseen to need: more of what makes them long, and never too much time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightasr.jobs import STAGES, Job
from lightasr.plan import load_plan
from lightasr.resources import LEAST_MINUTES, MOST_MINUTES, Needs, foresee

ROOT = Path(__file__).parents[2]
SCALES = ("smoke", "sample", "mini-librispeech", "librispeech-100", "librispeech-960")


def of_stage(scale: str, stage: str) -> list[Job]:
    return load_plan(
        ROOT, scale, ["encoders", "mixers", "ssl_label_budget", "ssl_objectives", "ssl_probes"]
    ).of_stage(stage)


def most(scale: str, stage: str, project: Path = Path("/nowhere")) -> Needs:
    needs = [foresee(job, project) for job in of_stage(scale, stage)]
    return Needs(max(need.mem_mb for need in needs), max(need.minutes for need in needs))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "neural_lm"])
def test_every_stage_has_room_for_torch_and_a_time_that_sites_allow(stage: str, scale: str) -> None:
    needs = most(scale, stage)
    assert 2000 <= needs.mem_mb <= 64_000
    assert LEAST_MINUTES <= needs.minutes <= MOST_MINUTES


@pytest.mark.parametrize("stage", ["archive", "features", "train", "decode"])
def test_more_speech_needs_more_time(stage: str) -> None:
    assert most("smoke", stage).minutes <= most("librispeech-100", stage).minutes
    assert most("librispeech-100", stage).minutes <= most("librispeech-960", stage).minutes


def test_more_text_needs_more_memory() -> None:
    assert most("sample", "lm").mem_mb < most("librispeech-100", "lm").mem_mb
    assert most("sample", "decode").mem_mb < most("librispeech-100", "decode").mem_mb


def test_hours_are_counted_once_the_features_are_there(tmp_path: Path) -> None:
    (job,) = [job for job in of_stage("librispeech-100", "features") if "train" in job.id]
    train = of_stage("librispeech-100", "train")[0]
    receipt = tmp_path / job.receipt
    receipt.parent.mkdir(parents=True)
    receipt.write_text(json.dumps({"audio_seconds": 3600}))
    assert foresee(train, tmp_path).minutes < foresee(train, Path("/nowhere")).minutes


def test_a_damaged_receipt_leaves_the_estimate(tmp_path: Path) -> None:
    (job,) = [job for job in of_stage("librispeech-100", "features") if "train" in job.id]
    train = of_stage("librispeech-100", "train")[0]
    receipt = tmp_path / job.receipt
    receipt.parent.mkdir(parents=True)
    receipt.write_text("{")
    assert foresee(train, tmp_path) == foresee(train, Path("/nowhere"))


def test_the_builtin_corpus_was_trained_with_what_is_foreseen() -> None:
    """Peaks of `make demo` on two cores: 1.8 GB of memory, 0.8 GB to decode."""
    assert most("sample", "train").mem_mb >= 1.5 * 1800
    assert most("sample", "decode").mem_mb >= 1.5 * 800
