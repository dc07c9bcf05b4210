"""Beam search: CTC scores and an n-gram of words or symbols, with or without a lexicon.

`prefixes` has the search itself; here are its parts, its results and its state in a stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightasr.decode import prefix_tree, prefixes
from lightasr.decode.hypotheses import Hypothesis, LogProbs, Weights, Word
from lightasr.decode.lexicon import Lexicon, build_lexicon
from lightasr.errors import LightasrError
from lightasr.lm.arpa import read_arpa, renumber
from lightasr.lm.lookup import ROOT, Tables
from lightasr.lm.tables import NOT_WORDS, NGram, ngram_of
from lightasr.text.tokenizers import Tokenizer
from lightasr.text.vocabulary import PIECE_BOUNDARY

# Frames between two places of one word in two hypotheses.
SAME_PLACE = 5

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Pruning:
    """How much is followed."""

    beam: int = 64
    """Prefixes kept at each frame."""
    threshold: float = 14.0
    """Score below the best at which a prefix is dropped."""
    tokens: int = 16
    """Symbols tried in a frame."""
    token_threshold: float = 10.0
    """Log-probability below a frame's best at which a symbol is not tried."""


class PrefixSearch:
    """Everything that one search after another only reads.

    `left_out` counts the words of the language model that the tokenizer cannot write: they are
    never hypothesised. `times` says whether words are told with their places; with several
    hypotheses they are.
    """

    # Compiled code lets go of Python's lock.
    threads = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm: Path | None,
        *,
        unit: Literal["word", "symbol"] = "word",
        closed: bool = True,
        unknown_score: float = -10.0,
        pruning: Pruning = Pruning(),
        nbest: int = 1,
        times: bool = False,
    ) -> None:
        if pruning.beam < 1 or nbest < 1:
            raise ValueError(f"a beam of {pruning.beam} cannot hold {nbest} hypotheses")
        self.symbols = len(tokenizer.symbols)
        self._tokenizer, self._pruning, self._nbest = tokenizer, pruning, nbest
        self._unknown_score = unknown_score
        self.times = times or nbest > 1
        self.left_out = 0
        ngram: NGram | None = None
        spellings: list[list[int]] = []
        if lm is not None:
            arpa = read_arpa(lm)
            if unit == "word":
                order, spellings = _spelling_order(tokenizer, arpa.words)
                arpa = renumber(arpa, order)
                self.left_out = len(set(arpa.words) - NOT_WORDS) - len(spellings)
            ngram = ngram_of(arpa, lm)
        if closed and not spellings:
            raise LightasrError(
                "decode.lexicon: there are no words to choose from: the language model is not one "
                "of words, or the tokenizer can write none of them; set it to false"
            )
        logp = ngram.tables.logp[1 : 1 + len(spellings)] if ngram else np.zeros(0, np.float32)
        lexicon = build_lexicon(spellings, logp, self.symbols)
        self.model = _model(tokenizer, ngram, unit, lexicon, closed)

    def options(self, weights: Weights) -> prefixes.Options:
        """A search with these weights."""
        if weights.lm_weight < 0:
            raise LightasrError(f"the weight of the language model is {weights.lm_weight}: below 0")
        return prefixes.Options(
            beam=self._pruning.beam,
            threshold=self._pruning.threshold,
            tokens=self._pruning.tokens,
            token_threshold=self._pruning.token_threshold,
            lm_weight=weights.lm_weight,
            word_score=weights.word_score,
            unknown_score=self._unknown_score,
        )

    @property
    def beam(self) -> int:
        return self._pruning.beam

    def of(self, *, beam: int | None = None, nbest: int | None = None) -> PrefixSearch:
        """The same search with another beam, or for more hypotheses, or for one text alone."""
        other = copy(self)
        other._pruning = replace(self._pruning, beam=beam or self.beam)
        if nbest is not None:
            other._nbest, other.times = nbest, nbest > 1
        return other

    def decode(self, logp_tv: LogProbs, weights: Weights) -> list[Hypothesis]:
        """The best hypotheses of one utterance, the best one first."""
        if not self.times:
            self.check(logp_tv)
            frames_tv = np.ascontiguousarray(logp_tv)
            symbols, score, ctc = prefixes.search(frames_tv, self.model, self.options(weights))
            if score > prefix_tree.NEVER:
                return [Hypothesis(self.text(symbols), score, ctc)]
        stream = self.stream(weights)
        stream.advance(logp_tv)
        return stream.hypotheses()

    def check(self, logp_tv: LogProbs) -> None:
        symbols = logp_tv.shape[1]
        if symbols != self.symbols:
            raise ValueError(f"{symbols} scores a frame, but {self.symbols} symbols")

    def stream(self, weights: Weights) -> Stream:
        """A search that reads an utterance piece by piece."""
        return Stream(self, self.options(weights), self._nbest)

    def text(self, symbols: Ints) -> str:
        return self._tokenizer.decode(symbols.tolist())

    def split(self, symbols: Ints) -> Iterator[tuple[int, int]]:
        """Where words begin and end in a prefix."""
        if self.model.boundary >= 0:
            bounds = [-1, *np.flatnonzero(symbols == self.model.boundary).tolist(), len(symbols)]
            yield from ((left + 1, right) for left, right in pairwise(bounds) if left + 1 < right)
        else:
            starts = np.flatnonzero(self.model.starts[symbols]).tolist()
            bounds = sorted({0, *starts, len(symbols)})
            yield from pairwise(bounds)


class Stream:
    """The state of a search between two pieces of an utterance."""

    def __init__(self, search: PrefixSearch, options: prefixes.Options, nbest: int) -> None:
        self._search, self._options, self._nbest = search, options, nbest
        self._tree = prefix_tree.new_tree(1)
        self._beam = prefix_tree.new_beam(options.beam)
        self._scratch = prefixes.new_scratch(options, search.symbols)
        prefixes.begin(self._tree, self._beam, search.model)
        self._used = self._width = 1
        self.frames = 0
        self._sure = False  # whether the last frame is surely blank

    def advance(self, logp_tv: LogProbs) -> None:
        """Read the next frames: log-probabilities `[T, V]`."""
        self._search.check(logp_tv)
        frames = len(logp_tv)
        logp_tv = np.ascontiguousarray(logp_tv)
        capacity = prefixes.NODES_PER_FRAME * frames
        at = 0
        while at < frames:
            self._make_room(capacity)
            capacity *= 2
            at, self._used, self._width = prefixes.advance(
                logp_tv,
                at,
                self.frames,
                self._sure,
                self._search.model,
                self._options,
                self._tree,
                self._used,
                self._beam,
                self._width,
                self._scratch,
            )
        self.frames += frames
        if frames:
            self._sure = bool(logp_tv[-1, self._search.model.blank] > prefixes.SURE)

    def _make_room(self, nodes: int) -> None:
        """A tree with the prefixes that are needed, and room for so many more."""
        nodes += self._options.beam * min(self._options.tokens, self._search.symbols)
        tree = prefix_tree.new_tree(self._used + nodes)
        self._used = prefix_tree.move(
            self._tree, self._used, tree, self._beam, self._width, self._search.symbols
        )
        self._tree = tree

    def hypotheses(self) -> list[Hypothesis]:
        """What has been said if nothing follows; the words that are cut off are left out."""
        model, tree = self._search.model, self._tree
        heard, prior = prefixes.finish(model, self._options, tree, self._beam, self._width)
        whole = np.isfinite(prior)
        if not whole.any():
            return [self._cut_off(heard)]
        nodes = self._beam.node[: self._width][whole]
        nodes = np.array([prefixes.sentence(model, tree, node) for node in nodes])
        nodes, first, of = np.unique(nodes, return_index=True, return_inverse=True)
        ctc = np.full(len(nodes), -np.inf)
        np.logaddexp.at(ctc, of, heard[whole])
        scores = ctc + prior[whole][first]
        found: dict[str, Hypothesis] = {}
        for i in np.argsort(-scores, kind="stable"):
            text, words = self._read(int(nodes[i]))
            # The likeliest way to spell a text counts, where there are several.
            found.setdefault(text, Hypothesis(text, float(scores[i]), float(ctc[i]), words))
            if len(found) == self._nbest:
                break
        hypotheses = list(found.values())
        return with_confidence(hypotheses) if self._nbest > 1 else hypotheses

    def _cut_off(self, heard: NDArray[np.float64]) -> Hypothesis:
        """The likeliest prefix without the word that it ends in, where no prefix is whole."""
        best = int(np.argmax(heard))
        symbols, _ = prefix_tree.spell(self._tree, self._beam.node[best])
        whole = list(self._search.split(symbols))[:-1]
        text = self._search.text(symbols[: whole[-1][1]]) if whole else ""
        return Hypothesis(text, float(heard[best]), float(heard[best]))

    def _read(self, node: int) -> tuple[str, tuple[Word, ...]]:
        """A prefix as text, and its words where more than the text is asked for."""
        symbols, frames = prefix_tree.spell(self._tree, node)
        text = self._search.text(symbols)
        if not self._search.times:
            return text, ()
        frames = _one_after_another(frames)
        return text, tuple(
            Word(self._search.text(symbols[a:b]), int(frames[a]), int(frames[b - 1]), 1.0)
            for a, b in self._search.split(symbols)
        )


def _one_after_another(frames: Ints) -> Ints:
    """The frames of the symbols of a prefix, each one before the next.

    The search keeps for each symbol the frame at which it most likely began whatever follows; what
    does follow may ask for an earlier one.
    """
    places = np.arange(len(frames), dtype=np.int32)
    return np.minimum.accumulate((frames - places)[::-1])[::-1] + places


def with_confidence(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    """Each word with the share of the hypotheses' probability that has it at its place."""
    scores = np.array([hypothesis.score for hypothesis in hypotheses])
    shares = np.exp(scores - np.logaddexp.reduce(scores))

    def confidence(word: Word) -> float:
        having = [
            any(
                other.text == word.text
                and other.first <= word.last + SAME_PLACE
                and word.first <= other.last + SAME_PLACE
                for other in hypothesis.words
            )
            for hypothesis in hypotheses
        ]
        return min(1.0, float(shares[having].sum()))

    return [
        Hypothesis(
            hypothesis.text,
            hypothesis.score,
            hypothesis.ctc,
            tuple(Word(w.text, w.first, w.last, confidence(w)) for w in hypothesis.words),
        )
        for hypothesis in hypotheses
    ]


def _spelling_order(
    tokenizer: Tokenizer, words: list[str]
) -> tuple[NDArray[np.int64], list[list[int]]]:
    """The words a tokenizer can write in the order of their spellings, then all others.

    Also these spellings: so the words below a node of the lexicon have neighbouring numbers.
    """
    numbers = [
        number
        for number, word in enumerate(words)
        if word not in NOT_WORDS and not tokenizer.outside(word)
    ]
    encoded = tokenizer.encode_all([words[number] for number in numbers])
    spelt = sorted(zip((ids.tolist() for ids in encoded), numbers, strict=True))
    inside = set(numbers)
    others = [number for number in range(len(words)) if number not in inside]
    order = np.array([*(number for _, number in spelt), *others], np.int64)
    return order, [ids for ids, _ in spelt]


def _model(
    tokenizer: Tokenizer,
    ngram: NGram | None,
    unit: Literal["word", "symbol"],
    lexicon: Lexicon,
    closed: bool,
) -> prefixes.Model:
    symbols = tokenizer.symbols
    marks = tokenizer.boundary is None
    numbers = [0] * len(symbols)
    if ngram is not None and unit == "symbol":
        numbers = [ngram.number(symbol) for symbol in symbols]
    units = {"word": prefixes.WORDS, "symbol": prefixes.SYMBOLS}
    return prefixes.Model(
        lexicon=lexicon,
        tables=_no_tables() if ngram is None else ngram.tables,
        starts=np.array([marks and s.startswith(PIECE_BOUNDARY) for s in symbols], np.bool_),
        lm_number=np.array(numbers, np.int32),
        unit=prefixes.NO_LM if ngram is None else units[unit],
        start=ROOT if ngram is None else ngram.start,
        end=-1 if ngram is None else ngram.end,
        unknown=0 if ngram is None else ngram.unknown,
        blank=tokenizer.blank,
        boundary=-1 if tokenizer.boundary is None else tokenizer.boundary,
        open=not closed,
    )


def _no_tables() -> Tables:
    ints, floats = np.zeros(1, np.int32), np.zeros(1, np.float32)
    return Tables(ints, floats, floats, np.ones(2, np.int32), ints, ints, floats)
