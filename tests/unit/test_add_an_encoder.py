"""docs/add-an-encoder.md, done as it says: files added, nothing else touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-an-encoder.md").read_text(encoding="utf-8")
CHECK = """
import torch
from lightasr import schema
from lightasr.models.asr import AcousticModel

for encoder in {encoders}:
    tree = schema.with_names({{"encoder": schema.spelt_out(encoder)}}, schema.Model)
    torch.manual_seed(0)
    model = AcousticModel(schema.Model.model_validate(tree), 20, 7).eval()
    features, lengths = torch.randn(2, 80, 20), torch.tensor([80, 50])
    together, _ = model(features, lengths)
    alone, n = model(features[1:, :50], lengths[1:])
    torch.testing.assert_close(alone[0], together[1, : n.item()], atol=1e-4, rtol=1e-4)
    nothing, _ = model(features, torch.zeros(2, dtype=torch.long))
    assert nothing.isfinite().all()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose source has the page's files, and whose study has its entries."""
    without_caches = shutil.ignore_patterns("__pycache__")
    for name in ("config", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=without_caches)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    for path, code in re.findall(r"```python\n# (src/\S+)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / path).write_text(code)
    study = tmp_path / "config" / "studies" / "encoders.yaml"
    tree = yaml.safe_load(study.read_text())
    tree["experiments"] |= entries()
    study.write_text(yaml.safe_dump(tree, sort_keys=False))
    return tmp_path


def entries() -> dict[str, dict]:
    found: dict[str, dict] = {}
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        found |= yaml.safe_load(block)
    return found


def python(project: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pages_components_are_rows_and_keep_utterances_apart(project: Path) -> None:
    assert set(entries()) == {"windowed", "mean"}
    plan = python(project, "-m", "lightasr", "plan", "--scale", "smoke")
    assert re.search(r"windowed +1 +windowed-\w{10} +train decode score", plan)
    assert re.search(r"mean +1 +conformer-mean-\w{10} +train decode score", plan)
    encoders = [entry["model"]["encoder"] for entry in entries().values()]
    python(project, "-c", CHECK.format(encoders=encoders))
