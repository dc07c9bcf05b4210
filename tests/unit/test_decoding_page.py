"""The page on decoding is true: its keys and defaults, its study, and its program."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lightasr import schema
from lightasr.decode.hypotheses import LogProbs
from lightasr.plan import load_plan
from tiny_decoding import ARPA, Letters

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "decoding.md").read_text(encoding="utf-8")

Caption = Callable[[Sequence[LogProbs]], Iterator[tuple[str, list[tuple[str, int, int]]]]]


def block(language: str) -> str:
    """The page's only piece of code in a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links_lead_somewhere(target: str) -> None:
    assert (DOCS / target).exists()


def test_every_key_and_its_default_are_told() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", PAGE, re.MULTILINE)
    told = {key: yaml.safe_load(default) for key, default in rows}
    assert told == schema.Decode().model_dump(mode="json")


def test_the_study_is_valid_and_trains_one_model(project: Path) -> None:
    path = project / "config" / "studies" / "decoding.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    (study,) = load_plan(project, "sample", ["decoding"]).studies
    runs = [run for experiment in study.experiments for run in experiment.runs]
    assert len(runs) == 9
    assert len({run.train.id for run in runs}) == 1
    assert len({run.decode.id for run in runs}) == 8, "`words` is the widest one of `beams`"


def test_a_line_of_n_best_is_json() -> None:
    (first, second) = json.loads(block("json"))["nbest"]
    assert first["score"] > second["score"]
    assert first["text"].split()[:2] == [word["word"] for word in first["words"]]


def test_the_program_says_what_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("python")
    train, lm = (tmp_path / place for place in re.findall(r'Path\("(.+?)"\)', code))
    for folder in (train, lm.parent):
        folder.mkdir(parents=True)
    Letters().save(train)
    lm.write_text(ARPA)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "decoding.md", "exec"), names)
    caption: Caption = names["caption"]
    path = [2, 3, 0, 1, 2, 0]  # AB A
    logp_tv = np.full((len(path), 4), -7.0, np.float32)
    logp_tv[range(len(path)), path] = -0.01
    captions = list(caption([logp_tv[:3], logp_tv[3:]]))
    assert [text for text, _ in captions] == ["AB", "AB A"]
    assert captions[-1][1] == [("AB", 0, 1), ("A", 4, 4)]
