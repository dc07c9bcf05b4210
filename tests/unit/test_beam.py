"""The beam search equals a sum over every path of a tiny problem, and what it does beside that."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import kenlm
import numpy as np
import pytest

from lightasr.decode.beam import PrefixSearch, Pruning
from lightasr.decode.hypotheses import Hypothesis, LogProbs, Weights
from lightasr.decode.parallel import Decoder
from lightasr.decode.tuning import narrow, tune
from lightasr.errors import LightasrError
from lightasr.text.tokenizers import Tokenizer
from tiny_decoding import ARPA, WORDS, Letters, Pieces, labels, paths

EVERYTHING = Pruning(beam=3000, threshold=1e6, tokens=100, token_threshold=1e6)
UNKNOWN_SCORE = -1.5
SYMBOLS_ARPA = """\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-1.2\t<unk>\t0
0\t<s>\t-0.2
-0.9\t</s>\t0
-0.5\tA\t-0.3
-0.6\tB\t-0.2
-0.7\t|\t-0.4

\\2-grams:
-0.1\t<s> B
-0.2\tB A
-0.3\t| A
-0.2\tA </s>

\\end\\
"""


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA)
    return path


def noise(seed: int, frames: int, symbols: int, sharpness: float = 2.0) -> LogProbs:
    scores = sharpness * np.random.default_rng(seed).standard_normal((frames, symbols))
    return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)


Prior = Callable[[tuple[int, ...]], float | None]


def exhaustive(logp_tv: LogProbs, tokenizer: Tokenizer, prior: Prior) -> dict[str, float]:
    """log P_ctc, summed over all paths, and prior of each text that may be, the best first."""
    heard: dict[str, float] = defaultdict(lambda: -math.inf)
    priors: dict[str, float] = {}
    for path in paths(len(tokenizer.symbols), len(logp_tv)):
        written = labels(path)
        weighed = prior(written)
        if weighed is not None:
            text = tokenizer.decode(written)
            priors[text] = weighed
            logp = sum(logp_tv[t, symbol] for t, symbol in enumerate(path))
            heard[text] = float(np.logaddexp(heard[text], logp))
    scores = {text: heard[text] + priors[text] for text in heard}
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def words_prior(
    tokenizer: Tokenizer, lm: Path, weights: Weights, unknown_score: float | None = None
) -> Prior:
    """Score of words: between two of them one boundary, and perhaps one after the last."""
    model = kenlm.Model(str(lm))

    def prior(written: tuple[int, ...]) -> float | None:
        if tokenizer.boundary is not None:
            parts = "".join(tokenizer.symbols[i] for i in written).split("|")
            parts = parts[:-1] if parts[-1] == "" else parts
            if "" in parts:
                return None
        elif written and not tokenizer.symbols[written[0]].startswith("▁"):
            return None
        words = tokenizer.decode(written).split()
        unknown = sum(word not in WORDS for word in words)
        if unknown and unknown_score is None:
            return None
        score = weights.lm_weight * model.score(" ".join(words)) + weights.word_score * len(words)
        return score + unknown * (unknown_score or 0.0)

    return prior


def check(found: list[Hypothesis], expected: dict[str, float]) -> None:
    best = list(expected.items())[: len(found)]
    assert [hypothesis.text for hypothesis in found] == [text for text, _ in best]
    scores = [hypothesis.score for hypothesis in found]
    assert scores == pytest.approx([score for _, score in best], abs=1e-4)


WEIGHTS = [Weights(0.0, 0.0), Weights(1.7, 0.0), Weights(0.8, -1.2), Weights(0.9, 0.7)]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("tokenizer", [Letters(), Pieces()], ids=["letters", "pieces"])
@pytest.mark.parametrize("frames", [0, 1, 2, 5])
def test_with_a_lexicon_it_is_the_sum_over_all_paths(
    tokenizer: Tokenizer, weights: Weights, frames: int, lm: Path
) -> None:
    search = PrefixSearch(tokenizer, lm, pruning=EVERYTHING, nbest=4)
    for seed in range(4):
        logp_tv = noise(seed, frames, len(tokenizer.symbols))
        expected = exhaustive(logp_tv, tokenizer, words_prior(tokenizer, lm, weights))
        found = search.decode(logp_tv, weights)
        assert len(found) == min(4, len(expected))
        check(found, expected)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_unknown_words_cost_what_they_should(weights: Weights, lm: Path) -> None:
    search = PrefixSearch(
        Letters(), lm, closed=False, unknown_score=UNKNOWN_SCORE, pruning=EVERYTHING, nbest=6
    )
    for seed in range(4):
        logp_tv = noise(seed, 5, 4)
        prior = words_prior(Letters(), lm, weights, UNKNOWN_SCORE)
        check(search.decode(logp_tv, weights), exhaustive(logp_tv, Letters(), prior))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_an_n_gram_of_symbols_counts_at_every_symbol(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(SYMBOLS_ARPA)
    model = kenlm.Model(str(path))

    def prior(written: tuple[int, ...]) -> float | None:
        spelt = [Letters().symbols[i] for i in written]
        if any(a == "|" and b in {"|", ""} for a, b in zip(["|", *spelt], spelt, strict=False)):
            return None
        words = len(Letters().decode(written).split())
        return weights.lm_weight * model.score(" ".join(spelt)) + weights.word_score * words

    search = PrefixSearch(Letters(), path, unit="symbol", closed=False, pruning=EVERYTHING)
    for seed in range(4):
        logp_tv = noise(seed, 5, 4)
        (best,) = search.decode(logp_tv, weights)
        heard: dict[tuple[int, ...], float] = defaultdict(lambda: -math.inf)
        for one in paths(4, 5):
            logp = sum(logp_tv[t, symbol] for t, symbol in enumerate(one))
            heard[labels(one)] = float(np.logaddexp(heard[labels(one)], logp))
        allowed = {one: prior(one) for one in heard}
        scores = {one: heard[one] + p for one, p in allowed.items() if p is not None}
        assert best.text == Letters().decode(max(scores, key=scores.__getitem__))


def test_without_a_language_model_the_likeliest_text_is_found() -> None:
    search = PrefixSearch(Letters(), None, closed=False, pruning=EVERYTHING)
    for seed in range(6):
        logp_tv = noise(seed, 5, 4)
        expected = exhaustive(logp_tv, Letters(), lambda written: _well_formed(written))
        check(search.decode(logp_tv, Weights(0.0, 0.0)), expected)


def _well_formed(written: tuple[int, ...]) -> float | None:
    parts = "".join(Letters().symbols[i] for i in written).split("|")
    return None if "" in (parts[:-1] if parts[-1] == "" else parts) else 0.0


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("tokenizer", [Letters(), Pieces()], ids=["letters", "pieces"])
def test_a_stream_ends_with_what_the_whole_gives(tokenizer: Tokenizer, size: int, lm: Path) -> None:
    search = PrefixSearch(tokenizer, lm, pruning=Pruning(beam=8), nbest=3)
    logp_tv = noise(3, 40, len(tokenizer.symbols))
    stream = search.stream(Weights(1.0, 0.5))
    for at in range(0, 40, size):
        stream.advance(logp_tv[at : at + size])
        assert stream.hypotheses(), "at any moment there is a best one"
    assert stream.hypotheses() == search.decode(logp_tv, Weights(1.0, 0.5))


@pytest.mark.parametrize("size", [1, 3])
def test_pauses_between_pieces_of_a_stream_change_nothing(size: int, lm: Path) -> None:
    search = PrefixSearch(Letters(), lm, nbest=2)
    path = [0, 0, 0, 0, 2, 3, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0]
    logp_tv = spoken(Letters(), path, 0.9999)
    stream = search.stream(Weights(1.0, 0.5))
    for at in range(0, len(path), size):
        stream.advance(logp_tv[at : at + size])
    assert stream.hypotheses() == search.decode(logp_tv, Weights(1.0, 0.5))


def spoken(tokenizer: Tokenizer, path: list[int], sure: float = 0.9) -> LogProbs:
    """The scores of a model that hears this path."""
    symbols = len(tokenizer.symbols)
    probabilities = np.full((len(path), symbols), (1 - sure) / (symbols - 1), np.float32)
    probabilities[range(len(path)), path] = sure
    return np.log(probabilities)


def test_words_have_times_and_confidences(lm: Path) -> None:
    path = [0, 0, 2, 2, 3, 0, 1, 0, 2, 0]  # AB A
    search = PrefixSearch(Letters(), lm, pruning=Pruning(beam=16), nbest=5)
    best, *others = search.decode(spoken(Letters(), path), Weights(1.0, 0.0))
    assert [(word.text, word.first, word.last) for word in best.words] == [
        ("AB", 2, 4),
        ("A", 8, 8),
    ]
    assert all(0.5 < word.confidence <= 1.0 for word in best.words)
    rare = [word for other in others for word in other.words if word.text not in {"A", "AB"}]
    assert rare
    assert all(word.confidence < 0.5 for word in rare)


def test_a_word_that_is_cut_off_is_left_out(lm: Path) -> None:
    """No word of the model goes `BBA`; the beam has room for one prefix only."""
    path = [2, 3, 1, 3, 3, 0, 3, 2]
    search = PrefixSearch(Letters(), lm, pruning=Pruning(beam=1))
    (best,) = search.decode(spoken(Letters(), path, 0.99)[:6], Weights(0.0, 0.0))
    assert best.text in {"AB B", "AB"}


@pytest.mark.parametrize("tokenizer", [Letters(), Pieces()], ids=["letters", "pieces"])
def test_long_pauses_change_no_text(tokenizer: Tokenizer, lm: Path) -> None:
    boundary = [] if tokenizer.boundary is None else [tokenizer.boundary]
    search = PrefixSearch(tokenizer, lm)
    found = []
    for pause in (1, 40):
        path = [*[0] * pause, *tokenizer.encode("AB"), *boundary, *[0] * pause]
        path += [*tokenizer.encode("A"), *[0] * pause]
        logp_tv = spoken(tokenizer, path, 0.9999)
        found.append(search.decode(logp_tv, Weights(1.0, 0.0))[0])
    assert found[0].text == found[1].text == "AB A"
    assert found[0].score == pytest.approx(found[1].score, abs=0.05)


def test_the_layout_in_memory_changes_nothing(lm: Path) -> None:
    search = PrefixSearch(Letters(), lm)
    logp_tv = noise(1, 12, 4)
    turned = np.ascontiguousarray(logp_tv.T).T
    assert search.decode(turned, Weights(1.0, 0.0)) == search.decode(logp_tv, Weights(1.0, 0.0))


def test_threads_and_batch_mates_change_nothing(lm: Path) -> None:
    search = PrefixSearch(Letters(), lm, nbest=3)
    utterances = [noise(seed, 3 + seed, 4) for seed in range(23)]
    alone = [search.decode(logp_tv, Weights(1.0, 0.0)) for logp_tv in utterances]
    for workers in (1, 3):
        with Decoder(search, workers) as decoder:
            assert list(decoder.decode(utterances, Weights(1.0, 0.0))) == alone


def test_a_long_utterance_needs_no_room_in_advance(lm: Path) -> None:
    search = PrefixSearch(Letters(), lm, pruning=Pruning(beam=200, threshold=1e6))
    logp_tv = noise(2, 400, 4, sharpness=0.3)
    pieces = search.stream(Weights(1.0, 0.0))
    for at in range(0, 400, 50):
        pieces.advance(logp_tv[at : at + 50])
    assert search.decode(logp_tv, Weights(1.0, 0.0)) == pieces.hypotheses()


def test_tuning_finds_what_the_dev_part_asks_for(lm: Path) -> None:
    # The sound says "B" a little louder than "AB"; the language model knows better.
    sound = np.array([[0.1, 0.0, 0.4, 0.5], [0.1, 0.0, 0.0, 0.9], [0.1, 0.9, 0.0, 0.0]])
    logp_tv = np.log(sound + 1e-6).astype(np.float32)
    search = PrefixSearch(Letters(), lm, pruning=EVERYTHING)
    with Decoder(search) as decoder:
        tuned = tune(decoder, [logp_tv, logp_tv[:2]], ["AB", "AB"], [3.0, 0.0, 2.0], [0.0])
    first = [(point["lm_weight"], point["wer"]) for point in tuned.surface[:3]]
    assert first == [(3.0, 0.0), (0.0, 1.0), (2.0, 0.0)]
    finer = [point["lm_weight"] for point in tuned.surface[3:]]
    assert finer[:2] == [1.25, 2.75], "half a step of the grid around the best of it"
    best = min(tuned.surface, key=lambda point: (point["wer"], point["lm_weight"]))
    assert tuned.weights == Weights(best["lm_weight"], 0.0)
    narrowed = narrow(search, tuned, [logp_tv], ["AB"])
    assert narrowed.beam < EVERYTHING.beam
    assert [point["beam"] for point in narrowed.beams][:2] == [3000, 1500]


def test_words_that_cannot_be_written_are_counted(lm: Path) -> None:
    lm.write_text(ARPA.replace("\tBB\t", "\tCB\t"))
    assert PrefixSearch(Letters(), lm).left_out == 1


def test_a_model_none_of_whose_words_can_be_written_is_refused(lm: Path) -> None:
    text = ARPA
    for word in WORDS:
        text = text.replace(f"\t{word}\t", f"\tX{word}\t")
    lm.write_text(text[: text.index("\\2-grams:")].replace("ngram 2=6\n", "") + "\\end\\\n")
    with pytest.raises(LightasrError, match=r"decode\.lexicon: there are no words to choose from"):
        PrefixSearch(Letters(), lm)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match=r"lm\.arpa: no such file"):
        PrefixSearch(Letters(), tmp_path / "lm.arpa")


def test_scores_that_are_not_numbers_are_refused(lm: Path) -> None:
    bad = np.zeros((3, 4), np.float32)
    bad[2, 0] = math.nan
    with (
        Decoder(PrefixSearch(Letters(), lm)) as decoder,
        pytest.raises(LightasrError, match=r"utterance 2 of 2: .*NaN"),
    ):
        list(decoder.decode([noise(0, 3, 4), bad], Weights(0.0, 0.0)))


@pytest.mark.parametrize("pruning", [Pruning(beam=0), Pruning(beam=-3)])
def test_a_beam_of_nothing_is_refused(pruning: Pruning, lm: Path) -> None:
    with pytest.raises(ValueError, match="a beam of"):
        PrefixSearch(Letters(), lm, pruning=pruning)


def test_other_symbols_than_the_tokenizers_are_refused(lm: Path) -> None:
    with pytest.raises(ValueError, match="5 scores a frame, but 4 symbols"):
        PrefixSearch(Letters(), lm).decode(noise(0, 3, 5), Weights(0.0, 0.0))


def test_a_negative_weight_is_refused(lm: Path) -> None:
    with pytest.raises(LightasrError, match="below 0"):
        PrefixSearch(Letters(), lm).decode(noise(0, 3, 4), Weights(-1.0, 0.0))
