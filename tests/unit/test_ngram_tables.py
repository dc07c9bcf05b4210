"""N-grams as flat arrays: they score as KenLM does, and what follows a history sums to one."""

from __future__ import annotations

import random
from pathlib import Path

import kenlm
import numpy as np
import pytest

from lightasr.errors import LightasrError
from lightasr.lm.lookup import score
from lightasr.lm.tables import NGram, load_ngram
from ngrams import Model, draw_sentences, estimate, write_model


def sentences_with_unknown(seed: int, count: int = 100) -> list[str]:
    """Some have words that no model knows."""
    draw = random.Random(seed)
    return [
        " ".join("NEVER" if draw.random() < 0.1 else word for word in sentence)
        for sentence in draw_sentences(seed, count)
    ]


def differences(path: Path, sentences: list[str]) -> list[float]:
    """How far our scores are from KenLM's."""
    ours, theirs = load_ngram(path), kenlm.Model(str(path))
    return [abs(ours.score(sentence) - theirs.score(sentence)) for sentence in sentences]


def sums(ngram: NGram, histories: list[list[str]]) -> list[float]:
    """Over all words that may follow each history of a sentence's beginning."""
    begin = ngram.numbers.get("<s>")
    found = []
    for words in histories:
        state = ngram.start
        for word in words:
            _, state = score(ngram.tables, state, ngram.number(word))
        follow = [n for n in range(len(ngram.words)) if n != begin]
        found.append(sum(10.0 ** score(ngram.tables, state, number)[0] for number in follow))
    return found


def prune_by_chance(model: Model, seed: int) -> Model:
    """Without some n-grams that no other begins with: the ends of longer ones are among them."""
    draw, histories = random.Random(seed), {words[:-1] for words in model}
    return {
        words: values
        for words, values in model.items()
        if len(words) == 1 or words in histories or draw.random() < 0.6
    }


@pytest.mark.parametrize("order", range(2, 7))
@pytest.mark.parametrize("least", [(1,), (1, 1, 2), (1, 2)], ids=["full", "pruned", "pruned more"])
def test_scores_are_those_of_kenlm(tmp_path: Path, order: int, least: tuple[int, ...]) -> None:
    model = estimate(draw_sentences(order), order, least)
    path = write_model(tmp_path / "lm.arpa", model)
    assert max(differences(path, sentences_with_unknown(7))) < 1e-4


@pytest.mark.parametrize("order", [3, 4, 6])
def test_scores_of_a_model_that_lacks_the_ends_of_ngrams(tmp_path: Path, order: int) -> None:
    """As pruning by entropy leaves it."""
    model = prune_by_chance(estimate(draw_sentences(order), order, (1,)), order)
    assert any(words[1:] not in model for words in model if len(words) > 1)
    path = write_model(tmp_path / "lm.arpa", model)
    assert max(differences(path, sentences_with_unknown(8))) < 1e-4


def test_scores_of_a_model_without_an_unknown_word(tmp_path: Path) -> None:
    model = estimate(draw_sentences(3), 3)
    del model["<unk>",]
    path = write_model(tmp_path / "lm.arpa", model)
    assert max(differences(path, sentences_with_unknown(9))) < 1e-3  # of scores below -100


@pytest.mark.parametrize("order", [2, 4, 6])
def test_what_follows_a_history_sums_to_one(tmp_path: Path, order: int) -> None:
    path = write_model(tmp_path / "lm.arpa", estimate(draw_sentences(order), order))
    histories = [sentence.split()[:order] for sentence in sentences_with_unknown(5, 40)]
    assert np.allclose(sums(load_ngram(path), [[], *histories]), 1.0, atol=1e-5)


def test_an_empty_sentence_and_one_word(tmp_path: Path) -> None:
    path = write_model(tmp_path / "lm.arpa", estimate(draw_sentences(2), 3))
    assert max(differences(path, ["", "w0", "NEVER"])) < 1e-5


def test_an_ngram_whose_beginning_is_missing_is_named(tmp_path: Path) -> None:
    model = estimate(draw_sentences(2), 3, (1,))
    words = next(words for words in model if len(words) == 3)
    del model[words[:-1]]
    with pytest.raises(LightasrError, match=r"has the 3-gram '.*', but not '.*', with which") as e:
        load_ngram(write_model(tmp_path / "lm.arpa", model))
    assert str(e.value).startswith(f"{tmp_path / 'lm.arpa'}: ")


def test_an_ngram_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = write_model(tmp_path / "lm.arpa", estimate(draw_sentences(2), 2))
    head, body = path.read_text().split("\\2-grams:\n")
    line = body.splitlines()[0]
    count = body.split("\n\n")[0].count("\n") + 1
    head = head.replace(f"ngram 2={count}", f"ngram 2={count + 1}")
    path.write_text(f"{head}\\2-grams:\n{line}\n{body}")
    with pytest.raises(LightasrError, match=rf"has the 2-gram '{line.split(chr(9))[1]}' twice"):
        load_ngram(path)
