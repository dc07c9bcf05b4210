"""Mixing two n-grams: the weight that fits best, and a mix that is a language model itself."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from lightasr.lm.arpa import Arpa, read_arpa
from lightasr.lm.arpa_writer import write_arpa
from lightasr.lm.interpolate import fit_weight, interpolate, token_probabilities
from lightasr.lm.lookup import score
from lightasr.lm.tables import NGram, load_ngram, ngram_of
from ngrams import draw_sentences, estimate, write_model

FIRST, SECOND, DEV = (
    draw_sentences(1, 300, 25),
    draw_sentences(2, 80, 40),
    draw_sentences(3, 60, 33),
)
MIXED_DEV = [*DEV, *draw_sentences(4, 60, 25)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Arpa, Arpa]:
    """A 4-gram of 25 words and a 3-gram of 40, which are these and others."""
    folder = tmp_path_factory.mktemp("models")
    first = write_model(folder / "first.arpa", estimate(FIRST, 4))
    second = write_model(folder / "second.arpa", estimate(SECOND, 3, (1, 2)))
    return read_arpa(first), read_arpa(second)


def ngram(arpa: Arpa) -> NGram:
    return ngram_of(arpa, Path("model"))


def mean_logp(p: np.ndarray) -> float:
    return float(np.log(p).mean())


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_at_either_end_the_mix_is_one_of_the_sources(
    sources: tuple[Arpa, Arpa], weight: float
) -> None:
    mixed, source = ngram(interpolate(*sources, weight)), ngram(sources[0 if weight else 1])
    for sentence in MIXED_DEV:
        line = " ".join(sentence)
        assert mixed.score(line) == pytest.approx(source.score(line), abs=1e-4)


def test_close_to_an_end_the_mix_is_close_to_the_source(sources: tuple[Arpa, Arpa]) -> None:
    """The way of computing goes over into the source, too, where the source knows the words."""
    mixed, source = ngram(interpolate(*sources, 1 - 1e-9)), ngram(sources[0])
    for sentence in FIRST[:50]:
        line = " ".join(sentence)
        assert mixed.score(line) == pytest.approx(source.score(line), abs=1e-3)


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.93])
def test_what_follows_any_history_of_the_mix_sums_to_one(
    sources: tuple[Arpa, Arpa], weight: float
) -> None:
    arpa = interpolate(*sources, weight)
    mixed = ngram(arpa)
    begin = mixed.numbers["<s>"]
    draw = random.Random(5)
    for ngrams in arpa.orders[:-1]:
        for row in draw.sample(ngrams.words.tolist(), min(30, len(ngrams.words))):
            state = 0
            for word in row:
                _, state = score(mixed.tables, state, word)
            follow = (n for n in range(len(mixed.words)) if n != begin)
            total = sum(10.0 ** score(mixed.tables, state, number)[0] for number in follow)
            assert total == pytest.approx(1.0, abs=1e-5), [mixed.words[n] for n in row]


def test_an_ngram_of_either_source_has_the_weighted_sum(sources: tuple[Arpa, Arpa]) -> None:
    arpa = interpolate(*sources, 0.3)
    mixed, models = ngram(arpa), [ngram(source) for source in sources]
    assert len(arpa.orders) == 4
    for order in (2, 3, 4):
        for row in arpa.orders[order - 1].words.tolist()[::17]:
            *history, word = (mixed.words[n] for n in row)
            parts = []
            for model in models:
                state = 0
                for before in history:
                    _, state = score(model.tables, state, model.number(before))
                logp, _ = score(model.tables, state, model.number(word))
                parts.append(10.0**logp if word in model.numbers else 0.0)
            node_logp = arpa.orders[order - 1].logp[
                arpa.orders[order - 1].words.tolist().index(row)
            ]
            assert 10.0**node_logp == pytest.approx(0.3 * parts[0] + 0.7 * parts[1], rel=1e-4)


def test_the_fitted_weight_is_the_best_of_a_grid(sources: tuple[Arpa, Arpa]) -> None:
    first, second = (token_probabilities(ngram(source), MIXED_DEV) for source in sources)
    known = (first > 0) | (second > 0)
    grid = np.linspace(0.001, 0.999, 999)
    found = [mean_logp(w * first[known] + (1 - w) * second[known]) for w in grid]
    weight = fit_weight(*sources, MIXED_DEV)
    assert weight == pytest.approx(grid[int(np.argmax(found))], abs=1e-3)
    assert 0.05 < weight < 0.95, "a test of something"


def test_the_weight_goes_to_the_source_that_knows_the_sentences(
    sources: tuple[Arpa, Arpa],
) -> None:
    assert fit_weight(*sources, FIRST) > 0.9
    assert fit_weight(*sources, SECOND) < 0.1


def test_the_mix_foretells_the_dev_part_better_than_each_source(tmp_path: Path) -> None:
    """Of two models of the same words: a word that one does not know has no perplexity there."""
    texts = [draw_sentences(1, turn=7), draw_sentences(2, turn=11)]
    dev = draw_sentences(3, 60, turn=7) + draw_sentences(4, 60, turn=11)
    first, second = (
        read_arpa(write_model(tmp_path / f"{number}.arpa", estimate(text, 3)))
        for number, text in enumerate(texts)
    )
    weight = fit_weight(first, second, dev)
    assert 0.2 < weight < 0.8
    by_first, by_second, by_mix = (
        mean_logp(token_probabilities(ngram(model), dev))
        for model in (first, second, interpolate(first, second, weight))
    )
    assert by_mix > max(by_first, by_second)


def test_unknown_words_written_in_capitals_are_the_same(sources: tuple[Arpa, Arpa]) -> None:
    first, second = sources
    capitals = Arpa([w.upper() if w == "<unk>" else w for w in first.words], first.orders)
    mixed = interpolate(capitals, second, 0.5)
    assert "<UNK>" not in mixed.words
    line = "w0 NEVER w1"
    expected = ngram(interpolate(first, second, 0.5)).score(line)
    assert ngram(mixed).score(line) == pytest.approx(expected, abs=1e-5)


def test_a_mix_that_is_written_is_read_by_others(
    sources: tuple[Arpa, Arpa], tmp_path: Path
) -> None:
    kenlm = pytest.importorskip("kenlm")
    arpa = interpolate(*sources, 0.4)
    write_arpa(tmp_path / "mix.arpa", arpa)
    ours, theirs = load_ngram(tmp_path / "mix.arpa"), kenlm.Model(str(tmp_path / "mix.arpa"))
    for sentence in MIXED_DEV:
        line = " ".join(sentence)
        assert ours.score(line) == pytest.approx(theirs.score(line), abs=1e-4)
