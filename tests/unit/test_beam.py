"""The beam search equals an exhaustive one over every path of a tiny problem."""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Iterable
from pathlib import Path

import kenlm
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lightasr.decode.beam import BeamDecoder, Weights
from lightasr.errors import LightasrError
from lightasr.text.tokenizers import Tokenizer

ARPA = """\\data\\
ngram 1=8
ngram 2=6

\\1-grams:
-2.0\t<unk>\t0
0\t<s>\t-0.4
-0.9\t</s>\t0
-0.7\tA\t-0.3
-1.1\tB\t-0.2
-0.8\tAB\t-0.5
-1.3\tBA\t-0.1
-1.6\tBB\t0

\\2-grams:
-0.3\t<s> AB
-0.9\t<s> B
-0.2\tAB A
-0.5\tA </s>
-0.6\tB BA
-0.4\tBA </s>

\\end\\
"""
WORDS = ["A", "AB", "B", "BA", "BB"]


class Letters(Tokenizer):
    """Two letters and `|` between words."""

    boundary = 1

    def __init__(self) -> None:
        super().__init__(["<blank>", "|", "A", "B"])

    def encode(self, text: str) -> list[int]:
        if not set(text) <= {"A", "B"}:
            raise LightasrError(f"no symbol: {text}")
        return [self.symbols.index(char) for char in text]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join("".join(self.symbols[i] for i in ids if i).replace("|", " ").split())


class Pieces(Tokenizer):
    """Pieces that start words and pieces that go on with them."""

    boundary = None

    def __init__(self) -> None:
        super().__init__(["<blank>", "_A", "_B", "A", "B"])

    def encode(self, text: str) -> list[int]:
        return [self.symbols.index(f"_{text[0]}"), *(self.symbols.index(char) for char in text[1:])]

    def decode(self, ids: Iterable[int]) -> str:
        spelt = "".join(self.symbols[i] for i in ids if i)
        headless = "-" if spelt and spelt[0] != "_" else ""  # the lexicon has no such word
        return " ".join((headless + spelt).replace("_", " ").split())


@pytest.fixture
def lm_dir(tmp_path: Path) -> Path:
    (tmp_path / "lm.bin").write_text(ARPA)
    (tmp_path / "words.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return tmp_path


def decoder(
    tokenizer: Tokenizer, lm_dir: Path, weights: Weights, nbest: int = 1, processes: int = 1
) -> BeamDecoder:
    """A decoder that prunes nothing."""
    return BeamDecoder(
        tokenizer,
        lm_dir,
        beam_size=5000,
        beam_threshold=5000.0,
        weights=weights,
        nbest=nbest,
        processes=processes,
    )


def read(path: Iterable[int], tokenizer: Tokenizer) -> str:
    """The text of a path: a symbol a frame."""
    return tokenizer.decode(symbol for symbol, _ in itertools.groupby(path))


def exhaustive(
    logp_tv: Tensor, tokenizer: Tokenizer, lm: kenlm.Model, weights: Weights
) -> dict[str, float]:
    """The score of every text that the lexicon allows, by its best path, best text first."""
    scores: dict[str, float] = {}
    frames = [row.tolist() for row in logp_tv]
    for path in itertools.product(range(len(tokenizer.symbols)), repeat=len(frames)):
        text = read(path, tokenizer)
        words = text.split()
        if set(words) <= set(WORDS):
            acoustic = sum(row[symbol] for row, symbol in zip(frames, path, strict=True))
            score = acoustic + weights.lm_weight * lm.score(text) + weights.word_score * len(words)
            scores[text] = max(score, scores.get(text, -math.inf))
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


@pytest.mark.parametrize("weights", [Weights(0.0, 0.0), Weights(1.7, 0.0), Weights(0.8, -1.2)])
def test_letters_equal_exhaustive_search(lm_dir: Path, weights: Weights) -> None:
    torch.manual_seed(3)
    logp_btv = (2 * torch.randn(12, 5, 4)).log_softmax(-1)
    lengths_b = torch.tensor([5, 4, 3, 2, 1, 0, 5, 5, 5, 5, 5, 5])
    lm = kenlm.Model(str(lm_dir / "lm.bin"))
    found_b = decoder(Letters(), lm_dir, weights, nbest=4).decode(logp_btv, lengths_b)
    for logp_tv, length, found in zip(logp_btv, lengths_b, found_b, strict=True):
        expected = list(exhaustive(logp_tv[:length], Letters(), lm, weights).items())[:4]
        assert [hypothesis.text for hypothesis in found] == [text for text, _ in expected]
        assert [hypothesis.score for hypothesis in found] == pytest.approx(
            [score for _, score in expected], abs=1e-4
        )


@pytest.mark.parametrize("weights", [Weights(0.0, 0.0), Weights(1.7, 0.5)])
def test_pieces_equal_exhaustive_search(lm_dir: Path, weights: Weights) -> None:
    """On emissions as of a trained model: flashlight's handling of pieces is not exact on noise."""
    tokenizer = Pieces()
    lm = kenlm.Model(str(lm_dir / "lm.bin"))
    draw = random.Random(4)
    paths = [
        p
        for p in itertools.product(range(5), repeat=5)
        if set(read(p, tokenizer).split()) <= set(WORDS)
    ]
    path_bt = torch.tensor(draw.sample(paths, 40))
    torch.manual_seed(4)
    logp_btv = (torch.randn(40, 5, 5) + 6 * one_hot(path_bt, 5)).log_softmax(-1)
    found_b = decoder(tokenizer, lm_dir, weights).decode(logp_btv, torch.full((40,), 5))
    for logp_tv, found in zip(logp_btv, found_b, strict=True):
        text, score = next(iter(exhaustive(logp_tv, tokenizer, lm, weights).items()))
        assert found[0].text == text
        assert found[0].score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("_A _A _A", "A"),
        ("_A B B", "AB"),
        ("_A B B B _A", "AB A"),
        ("_A 0 _A", "A A"),
        ("_A 0 _A _A 0 _B", "A A B"),
        ("0 _B 0 A 0", "BA"),
    ],
)
def test_held_pieces_are_one_and_repeated_words_are_two(path: str, text: str, lm_dir: Path) -> None:
    tokenizer = Pieces()
    ids = [0 if name == "0" else tokenizer.symbols.index(name) for name in path.split()]
    logp_btv = torch.full((1, len(ids), 5), -9.0)
    logp_btv[0, range(len(ids)), ids] = 0.0
    for word_score in (-1.0, 1.0):
        beam = decoder(tokenizer, lm_dir, Weights(1.0, word_score))
        ((best,),) = beam.decode(logp_btv, torch.tensor([len(ids)]))
        assert best.text == text


@pytest.mark.parametrize("tokenizer", [Letters(), Pieces()], ids=["letters", "pieces"])
def test_long_pauses_change_nothing(tokenizer: Tokenizer, lm_dir: Path) -> None:
    boundary = [] if tokenizer.boundary is None else [tokenizer.boundary]
    symbols = len(tokenizer.symbols)
    beam = decoder(tokenizer, lm_dir, Weights(1.0, 0.0))
    found = []
    for pause in (1, 40):
        path = [*[0] * pause, *tokenizer.encode("AB"), *boundary, *[0] * pause]
        path += [*tokenizer.encode("A"), *[0] * pause]
        logp_btv = (20.0 * one_hot(torch.tensor([path]), symbols)).log_softmax(-1)
        found.append(beam.decode(logp_btv, torch.tensor([len(path)]))[0][0])
    assert found[0].text == found[1].text == "AB A"
    assert found[0].score == pytest.approx(found[1].score, abs=1e-3)


def test_the_layout_in_memory_changes_nothing(lm_dir: Path) -> None:
    torch.manual_seed(6)
    logp_btv = (2 * torch.randn(8, 6, 4)).log_softmax(-1)
    transposed_btv = logp_btv.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    beam = decoder(Letters(), lm_dir, Weights(1.0, 0.0))
    straight = beam.decode(logp_btv, torch.full((8,), 6))
    assert beam.decode(transposed_btv, torch.full((8,), 6)) == straight
    assert beam.decode_each(list(transposed_btv)) == straight


def test_processes_change_nothing(lm_dir: Path) -> None:
    torch.manual_seed(5)
    logp_btv = torch.randn(23, 9, 4).log_softmax(-1)
    lengths_b = torch.randint(1, 10, (23,))
    alone = decoder(Letters(), lm_dir, Weights(1.0, 0.0), nbest=3)
    with decoder(Letters(), lm_dir, Weights(1.0, 0.0), nbest=3, processes=2) as shared:
        assert shared.decode(logp_btv, lengths_b) == alone.decode(logp_btv, lengths_b)


def test_tuning_finds_what_the_dev_part_asks_for(lm_dir: Path) -> None:
    # The sound says "B" a little louder than "AB"; the language model knows better.
    logp_tv = torch.tensor([[0.1, 0.0, 0.4, 0.5], [0.1, 0.0, 0.0, 0.9], [0.1, 0.9, 0.0, 0.0]])
    utterance = (logp_tv + 1e-6).log()
    tuning = decoder(Letters(), lm_dir, Weights(0.0, 0.0)).tune(
        [utterance, utterance[:2]], ["AB", "AB"], lm_weights=[3.0, 0.0, 1.0], word_scores=[0.0]
    )
    assert tuning.surface == [
        {"lm_weight": 3.0, "word_score": 0.0, "wer": 0.0},
        {"lm_weight": 0.0, "word_score": 0.0, "wer": 1.0},
        {"lm_weight": 1.0, "word_score": 0.0, "wer": 0.0},
    ]
    assert tuning.best == Weights(1.0, 0.0)


def test_words_that_cannot_be_written_are_counted(lm_dir: Path) -> None:
    (lm_dir / "words.txt").write_text("A\nAB\nCAB\n")
    assert decoder(Letters(), lm_dir, Weights(0.0, 0.0)).left_out == 1
    (lm_dir / "words.txt").write_text("CAB\n")
    with pytest.raises(LightasrError, match=r"words\.txt: the tokenizer can write none of its 1"):
        decoder(Letters(), lm_dir, Weights(0.0, 0.0))


@pytest.mark.parametrize("name", ["lm.bin", "words.txt"])
def test_missing_files_are_named(name: str, lm_dir: Path) -> None:
    (lm_dir / name).unlink()
    with pytest.raises(LightasrError, match=f"{name}: no such file"):
        decoder(Letters(), lm_dir, Weights(0.0, 0.0))


def test_a_damaged_language_model_is_named(lm_dir: Path) -> None:
    (lm_dir / "lm.bin").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(LightasrError, match=r"lm\.bin: not a language model"):
        decoder(Letters(), lm_dir, Weights(0.0, 0.0))


def test_scores_that_are_not_numbers_are_refused(lm_dir: Path) -> None:
    logp_btv = torch.zeros(2, 3, 4)
    logp_btv[1, 2, 0] = math.nan
    beam = decoder(Letters(), lm_dir, Weights(0.0, 0.0))
    with pytest.raises(LightasrError, match=r"utterance 2 of 2: .*NaN"):
        beam.decode(logp_btv, torch.tensor([3, 3]))
    assert (
        len(beam.decode(logp_btv, torch.tensor([3, 2]))) == 2
    )  # NaN beyond the length is not read


def test_a_killed_process_is_reported(lm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightasr.decode.beam._Search.decode", lambda *_: os._exit(9))
    with (
        decoder(Letters(), lm_dir, Weights(0.0, 0.0), processes=2) as beam,
        pytest.raises(LightasrError, match="was killed, as happens when memory runs out"),
    ):
        beam.decode(torch.zeros(2, 3, 4), torch.tensor([3, 3]))
