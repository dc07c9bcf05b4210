"""Stage `decode`: every utterance of a held-out part is decoded and scored, whatever its text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_train import rewritten, slices

from lightasr import schema
from lightasr.decode import run as decode
from lightasr.errors import LightasrError
from lightasr.score.wer import read_decoded, summarize, utterance_errors
from lightasr.train import loop


@pytest.fixture(scope="module")
def trained(tone_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run."""
    root = tmp_path_factory.mktemp("train")
    out, work = root / "ligru-0123456789", root / "work"
    out.mkdir()
    work.mkdir()
    config = slices(epochs=1, average=0)
    receipt = loop.run(config, tone_inputs, out, work)
    (out / "config.json").write_text(config.model_dump_json())
    (out / "run.json").write_text(json.dumps(receipt))
    return out


def test_text_that_the_tokenizer_cannot_write_is_scored_as_the_rest(
    trained: Path, tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    inputs = rewritten(tone_inputs, tmp_path / "changed", ["Été", "“cab”"])
    inputs = {"train": trained, "features/dev-clean": inputs["features/dev-clean"]}
    config = schema.DecodeSlice(decoders=("greedy",), dev="dev-clean")
    decode.run(config, inputs, tmp_path, tmp_path)
    decoded = read_decoded(tmp_path / "dev-clean.greedy.tsv")
    assert decoded["reference"].tolist()[:2] == ["ÉTÉ", "CAB"]
    assert summarize(utterance_errors(decoded), samples=100, seed=1)["utterances"] == 8


def test_an_utterance_without_words_is_refused_before_anything_is_decoded(
    trained: Path, tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    inputs = rewritten(tone_inputs, tmp_path / "changed", ["?!", "CAB", "..."])
    inputs = {"train": trained, "features/dev-clean": inputs["features/dev-clean"]}
    config = schema.DecodeSlice(decoders=("greedy",), dev="dev-clean")
    message = "nothing of 2 transcripts: 5-1-0000, 5-1-0002; .* leave it out of the part"
    with pytest.raises(LightasrError, match=message):
        decode.run(config, inputs, tmp_path, tmp_path)
    assert not list(tmp_path.glob("*.tsv"))


def test_the_case_of_references_is_the_configurations(
    trained: Path, tone_inputs: dict[str, Path], tmp_path: Path
) -> None:
    inputs = {"train": trained, "features/dev-clean": tone_inputs["features/dev-clean"]}
    text = schema.Text(case="lower")
    config = schema.DecodeSlice(decoders=("greedy",), text=text, dev="dev-clean")
    decode.run(config, inputs, tmp_path, tmp_path)
    references = read_decoded(tmp_path / "dev-clean.greedy.tsv")["reference"]
    assert references.str.islower().all()
