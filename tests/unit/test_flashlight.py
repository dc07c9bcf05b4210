"""flashlight's search, by which ours is checked, equals an exhaustive one over every path."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path

import kenlm
import numpy as np
import pytest

from lightasr.decode.hypotheses import LogProbs, Weights
from lightasr.decode.parallel import Decoder
from lightasr.errors import LightasrError
from lightasr.text.tokenizers import Tokenizer
from tiny_decoding import ARPA, WORDS, Letters, Pieces, labels, paths

flashlight = pytest.importorskip("lightasr.decode.flashlight", exc_type=ImportError)


@pytest.fixture
def lm_dir(tmp_path: Path) -> Path:
    (tmp_path / "lm.bin").write_text(ARPA)
    (tmp_path / "words.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return tmp_path


def everything(tokenizer: Tokenizer, lm_dir: Path, nbest: int = 1) -> flashlight.FlashlightSearch:
    """A search that prunes nothing."""
    return flashlight.FlashlightSearch(tokenizer, lm_dir, 5000, 5000.0, nbest)


def normalized(scores_tv: np.ndarray) -> LogProbs:
    return (scores_tv - np.logaddexp.reduce(scores_tv, axis=1, keepdims=True)).astype(np.float32)


def is_text(written: tuple[int, ...], tokenizer: Tokenizer) -> bool:
    """Whether symbols spell words of the lexicon."""
    marked = not written or tokenizer.boundary is not None or written[0] in {1, 2}
    return marked and set(tokenizer.decode(written).split()) <= set(WORDS)


def exhaustive(
    logp_tv: LogProbs, tokenizer: Tokenizer, lm_dir: Path, weights: Weights
) -> dict[str, float]:
    """The score of every text that the lexicon allows, by its best path, best text first."""
    lm = kenlm.Model(str(lm_dir / "lm.bin"))
    scores: dict[str, float] = {}
    for path in paths(len(tokenizer.symbols), len(logp_tv)):
        if is_text(labels(path), tokenizer):
            text = tokenizer.decode(labels(path))
            acoustic = sum(float(logp_tv[t, symbol]) for t, symbol in enumerate(path))
            words = weights.lm_weight * lm.score(text) + weights.word_score * len(text.split())
            scores[text] = max(acoustic + words, scores.get(text, -math.inf))
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


@pytest.mark.parametrize("weights", [Weights(0.0, 0.0), Weights(1.7, 0.0), Weights(0.8, -1.2)])
@pytest.mark.parametrize("frames", [0, 1, 2, 3, 4, 5])
def test_letters_equal_exhaustive_search(lm_dir: Path, weights: Weights, frames: int) -> None:
    search = everything(Letters(), lm_dir, nbest=4)
    for seed in range(3):
        draw = np.random.default_rng(seed)
        logp_tv = normalized(2 * draw.standard_normal((frames, 4)))
        expected = list(exhaustive(logp_tv, Letters(), lm_dir, weights).items())[:4]
        found = search.decode(logp_tv, weights)
        assert [hypothesis.text for hypothesis in found] == [text for text, _ in expected]
        scores = [hypothesis.score for hypothesis in found]
        assert scores == pytest.approx([score for _, score in expected], abs=1e-4)


@pytest.mark.parametrize("weights", [Weights(0.0, 0.0), Weights(1.7, 0.5)])
def test_pieces_equal_exhaustive_search(lm_dir: Path, weights: Weights) -> None:
    """On emissions as of a trained model: flashlight's handling of pieces is not exact on noise."""
    search = everything(Pieces(), lm_dir)
    draw, noise = random.Random(4), np.random.default_rng(4)
    spoken = [path for path in paths(5, 5) if is_text(labels(path), Pieces())]
    for path in draw.sample(spoken, 30):
        logp_tv = normalized(noise.standard_normal((5, 5)) + 6 * np.eye(5)[list(path)])
        text, score = next(iter(exhaustive(logp_tv, Pieces(), lm_dir, weights).items()))
        (best,) = search.decode(logp_tv, weights)
        assert best.text == text
        assert best.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("▁A ▁A ▁A", "A"),
        ("▁A B B", "AB"),
        ("▁A B B B ▁A", "AB A"),
        ("▁A 0 ▁A", "A A"),
        ("▁A 0 ▁A ▁A 0 ▁B", "A A B"),
        ("0 ▁B 0 A 0", "BA"),
    ],
)
def test_held_pieces_are_one_and_repeated_words_are_two(path: str, text: str, lm_dir: Path) -> None:
    ids = [0 if name == "0" else Pieces().symbols.index(name) for name in path.split()]
    logp_tv = np.where(np.eye(5)[ids] > 0, 0.0, -9.0).astype(np.float32)
    for word_score in (-1.0, 1.0):
        (best,) = everything(Pieces(), lm_dir).decode(logp_tv, Weights(1.0, word_score))
        assert best.text == text


def test_processes_change_nothing(lm_dir: Path) -> None:
    draw = np.random.default_rng(5)
    utterances = [normalized(draw.standard_normal((n, 4))) for n in range(1, 24)]
    search = everything(Letters(), lm_dir, nbest=3)
    alone = [search.decode(logp_tv, Weights(1.0, 0.0)) for logp_tv in utterances]
    with Decoder(search, 2) as shared:
        assert list(shared.decode(utterances, Weights(1.0, 0.0))) == alone


def test_a_killed_process_is_reported(lm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashlight.FlashlightSearch, "decode", lambda *_: os._exit(9))
    with (
        Decoder(everything(Letters(), lm_dir), 2) as decoder,
        pytest.raises(LightasrError, match="was killed, as happens when memory runs out"),
    ):
        list(decoder.decode([np.zeros((3, 4), np.float32)] * 2, Weights(0.0, 0.0)))


def test_words_that_cannot_be_written_are_counted(lm_dir: Path) -> None:
    (lm_dir / "words.txt").write_text("A\nAB\nCAB\n")
    assert everything(Letters(), lm_dir).left_out == 1
    (lm_dir / "words.txt").write_text("CAB\n")
    with pytest.raises(LightasrError, match=r"words\.txt: the tokenizer can write none of its 1"):
        everything(Letters(), lm_dir)


@pytest.mark.parametrize("name", ["lm.bin", "words.txt"])
def test_missing_files_are_named(name: str, lm_dir: Path) -> None:
    (lm_dir / name).unlink()
    with pytest.raises(LightasrError, match=f"{name}: no such file"):
        everything(Letters(), lm_dir)


def test_a_damaged_language_model_is_named(lm_dir: Path) -> None:
    (lm_dir / "lm.bin").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(LightasrError, match=r"lm\.bin: not a language model"):
        everything(Letters(), lm_dir)
