"""Stage `decode`: every utterance is decoded and scored, what was computed is kept, dev decides."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from test_train import rewritten, slices
from torch import Tensor

from lightasr import schema
from lightasr.data.batches import Utterance
from lightasr.decode import run as decode
from lightasr.decode.beam import PrefixSearch
from lightasr.decode.decoders import load_search
from lightasr.decode.hypotheses import Hypothesis, LogProbs, Weights
from lightasr.decode.parallel import Decoder
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.models.trained import Trained
from lightasr.score.wer import read_decoded, summarize, utterance_errors
from lightasr.train import loop
from tones import LETTERS, sentences

SPEAKERS = (1, 2, 3, 4, 5)
WORDS = sorted({word for n in SPEAKERS for text in sentences(10, n) for word in text.split()})
PARTS = {"dev-clean": 8, "test-clean": 40}


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


def write_lm(folder: Path, unit: str, entries: Sequence[str]) -> Path:
    """An n-gram to which all entries are alike, as the stage `lm` leaves one."""
    logp = -math.log10(len(entries) + 1)
    grams = "".join(f"{logp:.6f}\t{entry}\t0\n" for entry in (*entries, "</s>"))
    arpa = (
        f"\\data\\\nngram 1={len(entries) + 3}\nngram 2=1\n\n"
        f"\\1-grams:\n-2.0\t<unk>\t0\n0\t<s>\t0\n{grams}\n"
        f"\\2-grams:\n{logp:.6f}\t<s> {entries[0]}\n\n\\end\\\n"
    )
    folder.mkdir()
    (folder / "lm.arpa.gz").write_bytes(gzip.compress(arpa.encode()))
    (folder / "lm.bin").write_text(arpa)
    (folder / "words.txt").write_text("".join(f"{entry}\n" for entry in entries))
    (folder / "lm.json").write_text(json.dumps({"unit": unit}))
    return folder


@pytest.fixture(scope="module")
def inputs(
    trained: Path, tone_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """What the stage reads: a model, a dev and a test part, a language model of words."""
    return {
        "train": trained,
        "features/dev-clean": tone_inputs["features/dev-clean"],
        "features/test-clean": tone_inputs["features/train-clean-100"],
        "lm": write_lm(tmp_path_factory.mktemp("lm") / "words", "word", WORDS),
    }


@pytest.fixture
def scorings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Puts a model in place that hears each text through noise; of what it was asked, the sizes."""
    asked: list[int] = []

    def score(
        model: Trained, utterances: list[Utterance], batch_seconds: float
    ) -> Iterator[tuple[Utterance, Tensor]]:
        asked.append(len(utterances))
        for number, utterance in enumerate(utterances):
            path = [x for i in model.tokenizer.encode(utterance.text) for x in (0, i, i)]
            scores = np.random.default_rng(number).standard_normal(
                (len(path), len(model.tokenizer.symbols))
            )
            scores[range(len(path)), path] += 2.5
            yield utterance, torch.from_numpy(scores).float().log_softmax(-1)

    monkeypatch.setattr(Trained, "score_utterances", score)
    return asked


def settings(**decode: object) -> schema.DecodeSlice:
    tree: dict[str, Any] = {
        "dev": "dev-clean",
        "beam_size": 16,
        "lm_weights": [0.5, 1.0],
        "word_scores": [-1.0, 1.0],
        **decode,
    }
    return check(schema.DecodeSlice, tree, [Layer("config/studies/mine.yaml", "row", tree)])


def decoded(
    inputs: dict[str, Path], project: Path, name: str = "row", **settings_: object
) -> tuple[Path, dict[str, Any]]:
    """Run the stage, with the folders that it is given; what it leaves, and its report."""
    out, work = (project / folder / "decode" / name for folder in ("results", "checkpoints"))
    out.mkdir(parents=True)
    work.mkdir(parents=True, exist_ok=True)
    decode.run(settings(**settings_), inputs, out, work)
    return out, json.loads((out / "decode.json").read_text())


def hypotheses(out: Path, part: str, decoder: str = "beam") -> list[str]:
    return read_decoded(out / f"{part}.{decoder}.tsv")["hypothesis"].tolist()


def nbest(out: Path, part: str, decoder: str = "beam") -> list[dict[str, Any]]:
    lines = (out / f"{part}.{decoder}.nbest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# --- what is scored -----------------------------------------------------------------------------


def test_text_that_the_tokenizer_cannot_write_is_scored_as_the_rest(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    inputs = rewritten(inputs, tmp_path / "changed", ["Été", "“cab”"], "dev-clean")
    out, _ = decoded(inputs, tmp_path, decoders=["greedy"])
    part = read_decoded(out / "dev-clean.greedy.tsv")
    assert part["reference"].tolist()[:2] == ["ÉTÉ", "CAB"]
    assert summarize(utterance_errors(part), samples=100, seed=1)["utterances"] == 8


def test_an_utterance_without_words_is_refused_before_anything_is_decoded(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    inputs = rewritten(inputs, tmp_path / "changed", ["?!", "CAB", "..."], "dev-clean")
    message = "nothing of 2 transcripts: 5-1-0000, 5-1-0002; .* leave it out of the part"
    with pytest.raises(LightasrError, match=message):
        decoded(inputs, tmp_path, decoders=["greedy"])
    assert not list((tmp_path / "results").rglob("*.tsv"))


def test_references_are_written_as_the_configuration_asks(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    inputs = rewritten(inputs, tmp_path / "changed", ['A "cab"'], "dev-clean")
    text = {"case": "lower", "punctuation": "keep"}
    out, _ = decoded(inputs, tmp_path, decoders=["greedy"], text=text)
    references = read_decoded(out / "dev-clean.greedy.tsv")["reference"]
    assert references[0] == 'a "cab"'
    assert references.str.islower().all()


# --- what is kept -------------------------------------------------------------------------------


def test_the_model_runs_once_for_all_searches(
    inputs: dict[str, Path], tmp_path: Path, scorings: list[int]
) -> None:
    wide, _ = decoded(inputs, tmp_path, "wide", decoders=["beam"], beam_size=32, narrow=False)
    assert sorted(scorings) == sorted(PARTS.values())
    scorings.clear()
    narrow, _ = decoded(inputs, tmp_path, "narrow", decoders=["beam"], beam_size=1)
    assert scorings == []
    assert hypotheses(wide, "test-clean") != hypotheses(narrow, "test-clean")


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, str]], None]) -> None:
    """Change tensors and facts of a kept file."""
    tensors = load_file(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    facts = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]
    change(tensors, facts)
    save_file(tensors, path, metadata=facts)


def another_number(tensors: dict[str, Any], _: dict[str, str]) -> None:
    tensors["logp"][3, 1] = -0.5


def other_utterances(_: dict[str, Any], facts: dict[str, str]) -> None:
    facts["ids"] = json.dumps(["somebody-else"])


def no_facts(_: dict[str, Any], facts: dict[str, str]) -> None:
    facts.clear()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "another format": lambda path: path.write_text("id\ttext\n"),
    "a number changed": lambda path: rewrite(path, another_number),
    "other utterances": lambda path: rewrite(path, other_utterances),
    "without facts": lambda path: rewrite(path, no_facts),
}


@pytest.mark.parametrize("harm", DAMAGES.values(), ids=DAMAGES.keys())
def test_kept_log_probabilities_of_no_use_are_told_and_made_again(
    harm: Callable[[Path], object],
    inputs: dict[str, Path],
    tmp_path: Path,
    scorings: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, _ = decoded(inputs, tmp_path, "first", decoders=["greedy"])
    folder = tmp_path / "checkpoints" / "logits" / inputs["train"].name
    kept = folder / f"{inputs['features/dev-clean'].name}.safetensors"
    whole = kept.read_bytes()
    harm(kept)
    scorings.clear()
    capsys.readouterr()
    second, _ = decoded(inputs, tmp_path, "second", decoders=["greedy"])
    assert scorings == [PARTS["dev-clean"]]
    assert f"{kept}: of no use (" in capsys.readouterr().err
    assert hypotheses(second, "dev-clean", "greedy") == hypotheses(first, "dev-clean", "greedy")
    assert load_file(kept)["logp"].tobytes() in whole


def test_a_model_that_was_trained_again_scores_again(
    inputs: dict[str, Path], tmp_path: Path, scorings: list[int]
) -> None:
    """Its directory has the same name as before."""
    again = tmp_path / "again" / inputs["train"].name
    again.mkdir(parents=True)
    for path in inputs["train"].iterdir():
        if path.is_file():
            (again / path.name).write_bytes(path.read_bytes())
    decoded(inputs, tmp_path, "first", decoders=["greedy"])
    scorings.clear()
    decoded({**inputs, "train": again}, tmp_path, "second", decoders=["greedy"])
    assert scorings == [], "the same weights"
    weights = load_file(again / "model.safetensors")
    name = next(name for name, values in weights.items() if values.dtype == np.float32)
    save_file({**weights, name: weights[name] + 0.5}, again / "model.safetensors")
    decoded({**inputs, "train": again}, tmp_path, "third", decoders=["greedy"])
    assert sorted(scorings) == sorted(PARTS.values())


# --- a search that is killed --------------------------------------------------------------------


class Killed(BaseException):
    """As a signal ends a process."""


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many utterances each call of a decoder had, the first search of which is killed."""
    calls: list[int] = []
    deaths = [Killed()]
    real = Decoder.decode

    def watched(
        decoder: Decoder, utterances: Sequence[LogProbs], weights: Weights
    ) -> Iterator[Sequence[Hypothesis]]:
        calls.append(len(utterances))
        if calls[-3:] == [8, 15, 15] and deaths:
            raise deaths.pop()
        return real(decoder, utterances, weights)

    monkeypatch.setattr(Decoder, "decode", watched)
    monkeypatch.setattr(decode, "UTTERANCES_PER_SAVE", 15)
    return calls


@pytest.mark.parametrize("torn", ["", '{"seconds": 0.25, "found": [[{"text": "AB'])
@pytest.mark.usefixtures("scorings")
def test_a_killed_search_goes_on_after_the_last_whole_line(
    torn: str, inputs: dict[str, Path], tmp_path: Path, searched: list[int]
) -> None:
    with pytest.raises(Killed):
        decoded(inputs, tmp_path / "killed", decoders=["beam"])
    (kept,) = tmp_path.rglob("test-clean.beam.jsonl")
    assert len(kept.read_text().splitlines()) == 1
    with kept.open("a") as stream:
        stream.write(torn)
    (tmp_path / "killed" / "results").rename(tmp_path / "half-made")
    searched.clear()
    second, told = decoded(inputs, tmp_path / "killed", decoders=["beam"])
    assert searched == [15, 10], "neither tuned again nor decoded again"
    at_once, expected = decoded(inputs, tmp_path / "at-once", decoders=["beam"])
    for path in at_once.glob("*.beam.*"):
        assert (second / path.name).read_bytes() == path.read_bytes()
    for key in ("weights", "beam", "surface"):
        assert told["tuned"]["beam"][key] == expected["tuned"]["beam"][key]
    assert told["parts"]["test-clean"]["beam"]["utterances"] == PARTS["test-clean"]


@pytest.mark.usefixtures("scorings")
def test_what_was_found_with_another_language_model_is_not_gone_on_with(
    inputs: dict[str, Path], tmp_path: Path, searched: list[int]
) -> None:
    """A directory that was made again between two attempts has the same name as before."""
    with pytest.raises(Killed):
        decoded(inputs, tmp_path, decoders=["beam"])
    (tmp_path / "results").rename(tmp_path / "half-made")
    searched.clear()
    other = write_lm(tmp_path / "words", "word", WORDS[:5])
    out, _ = decoded({**inputs, "lm": other}, tmp_path, decoders=["beam"])
    assert searched[0] == PARTS["dev-clean"], "tuned anew"
    assert {word for text in hypotheses(out, "test-clean") for word in text.split()} <= {*WORDS[:5]}


# --- what is tuned ------------------------------------------------------------------------------


@pytest.mark.usefixtures("scorings")
def test_only_the_dev_part_decides_the_weights(inputs: dict[str, Path], tmp_path: Path) -> None:
    tuned = []
    for part in ("", "test-clean", "dev-clean"):
        wrong = sentences(PARTS[part], seed=9) if part else []
        changed = rewritten(inputs, tmp_path / f"wrong-{part}", wrong, part or "none")
        _, report = decoded(changed, tmp_path, f"wrong-{part}", decoders=["beam"], narrow=False)
        tuned.append(report["tuned"]["beam"])
    as_it_is, wrong_test, wrong_dev = tuned
    assert wrong_test == as_it_is
    assert wrong_dev["surface"] != as_it_is["surface"]


@pytest.mark.usefixtures("scorings")
def test_the_beam_is_halved_as_long_as_the_dev_part_does_not_suffer(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    _, report = decoded(inputs, tmp_path, decoders=["beam"], beam_size=64)
    tuned = report["tuned"]["beam"]
    tried = {point["beam"]: point["wer"] for point in tuned["beams"]}
    assert list(tried)[:2] == [64, 32]
    assert tried[tuned["beam"]] <= tried[64]


# --- what is written ----------------------------------------------------------------------------


@pytest.mark.usefixtures("scorings")
def test_the_n_best_file_says_what_may_have_been_said_and_when(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    out, _ = decoded(inputs, tmp_path, decoders=["beam"], nbest=5)
    part = read_decoded(out / "test-clean.beam.tsv").set_index("id")
    lines = nbest(out, "test-clean")
    assert [line["id"] for line in lines] == part.index.tolist()
    assert any(len(line["nbest"]) == 5 for line in lines)
    for line in lines:
        assert set(line) == {"id", "nbest"}
        assert line["nbest"][0]["text"] == part.loc[line["id"], "hypothesis"]
        scores = [entry["score"] for entry in line["nbest"]]
        assert scores == sorted(scores, reverse=True)
        for entry in line["nbest"]:
            assert set(entry) == {"text", "score", "ctc", "words"}
            assert " ".join(word["word"] for word in entry["words"]) == entry["text"]
            times = [word[key] for word in entry["words"] for key in ("start", "end")]
            assert times == sorted(times)
            assert all(0 <= time <= part.loc[line["id"], "seconds"] for time in times)
            assert all(0 < word["confidence"] <= 1 for word in entry["words"])


@pytest.mark.usefixtures("scorings")
def test_a_single_hypothesis_has_times_too(inputs: dict[str, Path], tmp_path: Path) -> None:
    out, _ = decoded(inputs, tmp_path, decoders=["beam"], nbest=1)
    for line in nbest(out, "dev-clean"):
        (entry,) = line["nbest"]
        assert len(entry["words"]) == len(entry["text"].split())


@pytest.mark.usefixtures("scorings")
def test_all_decoders_in_one_run(inputs: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("lightasr.decode.flashlight", exc_type=ImportError)
    out, report = decoded(inputs, tmp_path, decoders=["greedy", "beam", "flashlight"])
    assert {path.name for path in out.iterdir()} == {
        "decode.json",
        *(f"{part}.{name}.tsv" for part in PARTS for name in ("greedy", "beam", "flashlight")),
        *(f"{part}.{name}.nbest.jsonl" for part in PARTS for name in ("beam", "flashlight")),
    }
    assert set(report["tuned"]) == {"beam", "flashlight"}
    for part, count in PARTS.items():
        for timing in report["parts"][part].values():
            assert timing["utterances"] == count
            assert 0 < timing["search_seconds"] < timing["seconds"]
        words = {
            w
            for name in ("beam", "flashlight")
            for text in hypotheses(out, part, name)
            for w in text.split()
        }
        assert words <= set(WORDS)


# --- other searches -----------------------------------------------------------------------------


def heard(search: PrefixSearch, text: str, train: Path) -> str:
    """What is found where a text is heard with little doubt."""
    tokenizer = decode.load_tokenizer(train)
    path = [x for i in tokenizer.encode(text) for x in (0, i)]
    logp_tv = np.full((len(path), len(tokenizer.symbols)), -5.0, np.float32)
    logp_tv[range(len(path)), path] = -0.1
    return search.decode(logp_tv, Weights(0.5, 0.0))[0].text


def test_without_a_lexicon_other_words_are_found(inputs: dict[str, Path]) -> None:
    text = f"{WORDS[0]} EEEADDA {WORDS[1]}"
    train, lm = inputs["train"], inputs["lm"]
    free = load_search("beam", settings(lexicon=False, unknown_score=-1.0), train, lm)
    assert heard(free, text, train) == text
    closed = load_search("beam", settings(), train, lm)
    assert set(heard(closed, text, train).split()) <= set(WORDS)


def test_an_n_gram_of_letters_needs_no_lexicon(inputs: dict[str, Path], tmp_path: Path) -> None:
    lm = write_lm(tmp_path / "letters", "char", ["|", *LETTERS])
    search = load_search("beam", settings(), inputs["train"], lm)
    assert heard(search, "EEEADDA AB", inputs["train"]) == "EEEADDA AB"
    with pytest.raises(LightasrError, match="flashlight needs an n-gram of words, not of chars"):
        load_search("flashlight", settings(), inputs["train"], lm)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beam_size", 0),
        ("beam_threshold", 0.0),
        ("tokens", -1),
        ("nbest", 0),
        ("unknown_score", 1.0),
        ("lm_weights", []),
        ("lm_weights", [-0.5]),
        ("word_scores", []),
        ("word_scores", ["much"]),
        ("decoders", []),
        ("decoders", ["bean"]),
    ],
)
def test_settings_without_sense_are_refused_by_file_and_key(key: str, value: object) -> None:
    with pytest.raises(LightasrError, match=rf"^config/studies/mine\.yaml: row: {key}\b"):
        settings(**{key: value})
