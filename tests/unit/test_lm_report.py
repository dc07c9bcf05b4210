"""`lightasr lm report`: perplexity, unknown words, size and time of the models that are made."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from pathlib import Path
from typing import Any

import kenlm
import pytest
from typer.testing import CliRunner

from lightasr import cli, schema
from lightasr.errors import LightasrError
from lightasr.jobs import Job
from lightasr.lm.report import report, report_text, score_part
from lightasr.lm.tables import load_ngram
from lightasr.lm.units import Units
from lightasr.plan import Plan, load_plan
from lightasr.text.tokenizers import CharTokenizer
from ngrams import draw_sentences, estimate, write_model
from planning import finish, write_study

SUMMARY = {"order": 3, "words": 25, "counts": {"1": 28, "2": 99}, "bytes": 1234, "seconds": 2.5}
TEXT = schema.Text(case="lower")
WORDS = Units(TEXT)


def transcripts(seed: int = 3) -> list[tuple[str, str]]:
    sentences = draw_sentences(seed, 20, 30)
    return [(str(number), " ".join(words)) for number, words in enumerate(sentences)]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-gram of 25 of the transcripts' 30 words."""
    path = tmp_path_factory.mktemp("model") / "lm.arpa"
    return write_model(path, estimate(draw_sentences(1), 3))


def made(plan: Plan, job: Job, model: Path, **summary: Any) -> None:
    """What the stage leaves; KenLM reads text as well as its own files."""
    finish(plan, [job])
    shutil.copy(model, plan.project / job.dir / "lm.bin")
    (plan.project / job.dir / "lm.json").write_text(json.dumps({**SUMMARY, **summary}))


def with_transcripts(plan: Plan, *parts: str) -> None:
    for job in plan.of_stage("features"):
        if job.config["part"] in parts:
            finish(plan, [job])
            lines = (
                json.dumps({"id": name, "supervisions": [{"text": text}]}) + "\n"
                for name, text in transcripts()
            )
            packed = gzip.compress("".join(lines).encode())
            (plan.project / job.dir / "cuts.jsonl.gz").write_bytes(packed)


def two_models(project: Path) -> tuple[Plan, list[Job]]:
    write_study(
        project,
        experiments={"four": {}, "three": {"lm": {"order": 3}}, "gru": {"train": {"lr": 0.1}}},
        base={"text": {"case": "lower"}, "tokenizer": {"alphabet": "w0123456789"}},
    )
    plan = load_plan(project, "smoke", ["mine"])
    return plan, plan.of_stage("lm")


def test_perplexity_with_and_without_unknown_words(model_file: Path) -> None:
    found = score_part(kenlm.Model(str(model_file)), WORDS, "dev", transcripts())
    ours = load_ngram(model_file)
    lines = [text for _, text in transcripts()]
    words = [word for line in lines for word in line.split()]
    total = sum(ours.score(line) for line in lines)
    tokens = len(words) + len(lines)
    assert (found.part, found.sentences, found.units) == ("dev", 20, len(words))
    assert found.unknown == sum(word not in ours.numbers for word in words) > 0
    assert found.perplexity == pytest.approx(10 ** (-total / tokens), rel=1e-4)
    assert found.perplexity_known < found.perplexity
    characters = sum(len(line) + 1 for line in lines)
    bits = -total / math.log10(2) / characters
    assert found.bits_per_character == pytest.approx(bits, rel=1e-4)


def test_letters_that_the_tokenizer_lacks_are_unknown(tmp_path: Path) -> None:
    units = Units(TEXT, CharTokenizer("ab"))
    assert units.split("ab a") == ["a", "b", "|", "a"]
    assert units.split("ab xy b") is None
    assert units.split_with_unknown("ab xy b") == ["a", "b", "|", "<unk>", "|", "b"]
    letters = [units.split_with_unknown("ab a b"), units.split_with_unknown("a a")]
    model = kenlm.Model(str(write_model(tmp_path / "lm.arpa", estimate(letters, 2))))
    found = score_part(model, units, "dev", [("1", "AB xy b")])
    assert (found.units, found.unknown) == (6, 1)


def test_a_part_without_transcripts_is_named(model_file: Path) -> None:
    with pytest.raises(LightasrError, match=r"^dev: no transcript to score"):
        score_part(kenlm.Model(str(model_file)), WORDS, "dev", [])


def test_each_model_that_is_made_is_scored_on_the_parts_that_are_there(
    project: Path, model_file: Path
) -> None:
    plan, (four, three) = two_models(project)
    with_transcripts(plan, "dev-clean", "test-other")
    made(plan, four, model_file)
    found = report(plan)
    assert found.missing == [three.id]
    (model,) = found.made
    assert (model.id, model.unit, model.bytes, model.arpa_bytes) == (four.id, "word", 1234, None)
    assert model.rows == ["mine/four", "mine/gru"]
    assert [part.part for part in model.parts] == ["dev-clean", "test-other"]
    assert model.parts[0] == score_part(
        kenlm.Model(str(model_file)), WORDS, "dev-clean", transcripts()
    )


def test_the_report_fits_a_terminal(project: Path, model_file: Path) -> None:
    plan, (four, three) = two_models(project)
    with_transcripts(plan, "dev-clean", "test-clean", "test-other")
    counts = {str(order): 41_084_123 for order in range(1, 7)}
    made(plan, four, model_file, order=6, words=200_000, counts=counts, unit="piece", weight=0.75)
    text = report_text(report(plan))
    assert max(map(len, text.splitlines())) <= 80
    assert "\n  weight 0.750, of the transcripts 0.250\n" in text
    assert "\n  used by mine/four, mine/gru\n" in text
    assert text.endswith(f"\n  {three.id}")


def test_a_plan_without_language_models(project: Path) -> None:
    write_study(project, base={"decode": {"decoders": ["greedy"]}})
    text = report_text(report(load_plan(project, "smoke", ["mine"])))
    assert text.splitlines()[-1] == "no experiment decodes with a language model"


@pytest.mark.parametrize("name", ["lm.bin", "lm.json"])
def test_a_damaged_model_is_named(project: Path, model_file: Path, name: str) -> None:
    plan, (four, _) = two_models(project)
    made(plan, four, model_file)
    (plan.project / four.dir / name).write_text("nothing")
    with pytest.raises(LightasrError, match=rf"{four.dir}/{name}: "):
        report(plan)


def test_the_command_for_people_and_for_programs(
    project: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, (four, three) = two_models(project)
    with_transcripts(plan, "dev-clean")
    made(plan, four, model_file)
    monkeypatch.chdir(project)
    options = ["--scale", "smoke", "--study", "mine"]
    runner = CliRunner()
    assert (
        runner.invoke(cli.app, ["lm", "report", *options]).stdout
        == f"{report_text(report(plan))}\n"
    )
    tree = json.loads(runner.invoke(cli.app, ["lm", "report", "--json", *options]).stdout)
    assert tree["missing"] == [three.id]
    assert tree["made"][0]["parts"][0]["part"] == "dev-clean"
    refused = runner.invoke(cli.app, ["lm", four.id, "--json", *options])
    assert str(refused.exception) == "--json goes with `lightasr lm report`"
