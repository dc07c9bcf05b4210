"""Rescoring: a neural language model has its say in the order of the beam search's hypotheses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lightasr import schema
from lightasr.data.batches import Utterance
from lightasr.decode import rescoring, run
from lightasr.decode.hypotheses import Found, Hypothesis, Weights, Word
from lightasr.decode.rescoring import reorder, rescore, score_nbest, tune_weight
from lightasr.score.wer import read_decoded
from lightasr.text.tokenizers import NO_TOKENS

LIKELY = {"A GOOD TEXT": -1.0, "A BAD TEXT": -9.0, "ANOTHER": -2.0, "": -5.0}


class Oracle:
    """A language model that knows four sentences."""

    def log_probabilities(self, texts: list[str]) -> np.ndarray:
        return np.array([LIKELY[text] for text in texts])


def nbest(*scored: tuple[str, float]) -> list[Hypothesis]:
    return [Hypothesis(text, score, score, (Word(text, 0, 9, 1.0),)) for text, score in scored]


MISHEARD: Found = [
    nbest(("A BAD TEXT", -3.0), ("A GOOD TEXT", -4.0)),
    nbest(("ANOTHER", -1.0), ("", -1.5)),
]


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescoring, "load_language_model", lambda folder: Oracle())


def test_the_likelier_text_comes_first_by_score_and_weighted_probability() -> None:
    logps = score_nbest(Oracle(), MISHEARD)  # type: ignore[arg-type]
    assert [list(logp) for logp in logps] == [[-9.0, -1.0], [-2.0, -5.0]]
    (first, second), (only, _) = reorder(MISHEARD, logps, 0.5)
    assert (first.text, first.score, first.ctc) == ("A GOOD TEXT", -4.5, -4.0)
    assert (second.text, second.score) == ("A BAD TEXT", -7.5)
    assert only.text == "ANOTHER"
    assert first.words[0].confidence == pytest.approx(1 / (1 + np.exp(-3.0)))


def test_without_weight_nothing_changes() -> None:
    logps = score_nbest(Oracle(), MISHEARD)  # type: ignore[arg-type]
    found = reorder(MISHEARD, logps, 0.0)
    assert [[h.text for h in one] for one in found] == [[h.text for h in one] for one in MISHEARD]


def test_the_least_weight_of_the_lowest_error_rate_is_taken() -> None:
    """The first utterance is right above 1/8, up to any weight."""
    logps = score_nbest(Oracle(), MISHEARD)  # type: ignore[arg-type]
    tuned = tune_weight(MISHEARD, logps, ["A GOOD TEXT", "ANOTHER"])
    assert tuned.weights == {"neural_weight": 0.15625}
    tried = {point["neural_weight"]: point["wer"] for point in tuned.surface}
    assert tried[0.0] == tried[0.125] == 0.25
    assert tried[0.15625] == tried[2.0] == 0


def test_a_model_that_only_harms_gets_no_weight() -> None:
    logps = score_nbest(Oracle(), MISHEARD)  # type: ignore[arg-type]
    tuned = tune_weight(MISHEARD, logps, ["A BAD TEXT", "ANOTHER"])
    assert tuned.weights == {"neural_weight": 0.0}


@pytest.mark.usefixtures("oracle")
def test_the_dev_part_alone_decides() -> None:
    found = {"dev": (MISHEARD, 2.0), "test": (MISHEARD[:1], 1.0)}
    rescored, tuned = rescore(found, "dev", ["A GOOD TEXT", "ANOTHER"], Path())
    alone, same = rescore({"dev": found["dev"]}, "dev", ["A GOOD TEXT", "ANOTHER"], Path())
    assert tuned == same
    (texts,) = ([h.text for h in one] for one in rescored["test"][0])
    assert texts == ["A GOOD TEXT", "A BAD TEXT"]
    assert rescored["dev"][0] == alone["dev"][0]
    assert rescored["dev"][1] >= 2.0, "the search's seconds, and its own"


@pytest.mark.usefixtures("oracle")
def test_an_utterance_of_one_hypothesis_keeps_it() -> None:
    found = {"dev": ([nbest(("", -3.0))], 0.0)}
    rescored, _ = rescore(found, "dev", ["ANOTHER"], Path())
    assert [h.text for h in rescored["dev"][0][0]] == [""]


class Scripted:
    """A search that finds what is written here, whatever it hears."""

    symbols, beam, left_out, threads = 2, 4, 0, True

    def of(self, **_: int) -> Scripted:
        return self

    def decode(self, logp_tv: np.ndarray, weights: Weights) -> list[Hypothesis]:
        return MISHEARD[int(logp_tv[0, 0])]


@pytest.mark.usefixtures("oracle")
def test_the_stage_writes_it_as_one_more_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = ["A GOOD TEXT", "ANOTHER"]
    utterances = [
        Utterance(str(i), "me", 2.0, 10, text, NO_TOKENS, tmp_path, "", 1.0)
        for i, text in enumerate(spoken)
    ]
    part = SimpleNamespace(
        utterances=utterances,
        logp=[np.full((5, 2), i, np.float32) for i in range(2)],
        seconds=1.0,
        device="cpu",
    )
    monkeypatch.setattr(run, "score_parts", lambda *_: {"dev": part})
    monkeypatch.setattr(run, "attempts", lambda *_: tmp_path)
    monkeypatch.setattr(run, "load_search", lambda *_: Scripted())
    inputs = dict.fromkeys(("train", "lm", "neural_lm"), tmp_path)
    run.run(schema.DecodeSlice(dev="dev", decoders=("beam",)), inputs, tmp_path, tmp_path)
    report = json.loads((tmp_path / "decode.json").read_text())
    assert report["tuned"]["rescored"]["weights"] == {"neural_weight": 0.15625}
    seconds = report["parts"]["dev"]
    assert seconds["rescored"]["search_seconds"] >= seconds["beam"]["search_seconds"]
    assert list(read_decoded(tmp_path / "dev.beam.tsv")["hypothesis"]) == ["A BAD TEXT", "ANOTHER"]
    assert list(read_decoded(tmp_path / "dev.rescored.tsv")["hypothesis"]) == spoken
    first, _ = (tmp_path / "dev.rescored.nbest.jsonl").read_text().splitlines()
    assert [entry["score"] for entry in json.loads(first)["nbest"]] == [-4.1562, -4.4062]
