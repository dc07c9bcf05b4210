"""Weights, and the width of the beam, that do best on the dev part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

import jiwer

from lightasr.decode.hypotheses import LogProbs, Search, Weights
from lightasr.decode.parallel import Decoder
from lightasr.progress import Bar, track
from lightasr.threads import usable_cores

# How often the steps around the best point are halved.
REFINEMENTS = 2
NARROWEST = 4

Point = dict[str, float]


@dataclass(frozen=True)
class Tuned:
    """The best weights and beam, and all that was tried."""

    weights: Weights
    beam: int
    surface: list[Point] = field(default_factory=list)
    """`lm_weight`, `word_score` and `wer` of each pair of weights."""
    beams: list[Point] = field(default_factory=list)
    """`beam`, `wer` and `seconds` of each width."""

    @classmethod
    def read(cls, tree: dict[str, Any]) -> Tuned:
        return cls(**{**tree, "weights": Weights(**tree["weights"])})


def tune(
    decoder: Decoder,
    utterances: Sequence[LogProbs],
    references: Sequence[str],
    lm_weights: Sequence[float],
    word_scores: Sequence[float],
) -> Tuned:
    """Try every pair of weights, then finer steps around the best one.

    Of equally good pairs the one that leans least on the language model is taken.
    """
    if len(utterances) != len(references):
        raise ValueError(f"{len(utterances)} utterances, but {len(references)} references")

    def wer_of(weights: Weights) -> float:
        return wer(references, decoder, utterances, weights)

    surface: dict[Weights, float] = {}
    lm_step, word_step = step(lm_weights), step(word_scores)
    with track("tune the beam search") as bar:
        grid = [Weights(*pair) for pair in product(lm_weights, word_scores)]
        _try_all(grid, wer_of, surface, bar)
        for _ in range(REFINEMENTS):
            lm_step, word_step = lm_step / 2, word_step / 2
            _try_all(around(best(surface), lm_step, word_step), wer_of, surface, bar)
    points = [{**asdict(weights), "wer": wer} for weights, wer in surface.items()]
    return Tuned(best(surface), decoder.search.beam, points)


def narrow(
    search: Search, tuned: Tuned, utterances: Sequence[LogProbs], references: Sequence[str]
) -> Tuned:
    """Halve the beam as long as the dev part is decoded as well as with the whole one."""
    tried: list[Point] = []
    beam = search.beam
    while beam >= min(NARROWEST, search.beam):
        started = time.monotonic()
        with Decoder(search.of(beam=beam, nbest=1), usable_cores()) as decoder:
            found = wer(references, decoder, utterances, tuned.weights)
        tried.append({"beam": beam, "wer": found, "seconds": time.monotonic() - started})
        if found > tried[0]["wer"]:
            break
        tuned = replace(tuned, beam=beam)
        beam //= 2
    return replace(tuned, beams=tried)


def wer(
    references: Sequence[str], decoder: Decoder, utterances: Sequence[LogProbs], weights: Weights
) -> float:
    found = [hypotheses[0].text for hypotheses in decoder.decode(utterances, weights)]
    return float(jiwer.wer(list(references), found))


def best(surface: dict[Weights, float]) -> Weights:
    """The point of the lowest error rate; of several the one that leans least on the n-gram."""
    return min(
        surface,
        key=lambda w: (surface[w], w.lm_weight, abs(w.word_score), w.word_score),
    )


def step(values: Sequence[float]) -> float:
    """The distance of neighbours in a grid; 0 where there is one value only."""
    return (max(values) - min(values)) / (len(values) - 1) if len(values) > 1 else 0.0


def around(centre: Weights, lm_step: float, word_step: float) -> list[Weights]:
    """The neighbours of a point; the weight of a language model is not negative."""
    points = {
        Weights(max(0.0, centre.lm_weight + i * lm_step), centre.word_score + j * word_step)
        for i, j in product((-1, 0, 1), repeat=2)
    }
    return sorted(points, key=lambda weights: (weights.lm_weight, weights.word_score))


def _try_all(
    points: Sequence[Weights],
    wer_of: Callable[[Weights], float],
    surface: dict[Weights, float],
    bar: Bar,
) -> None:
    for weights in points:
        if weights not in surface:
            found = wer_of(weights)
            surface[weights] = found
            bar.update(1, lm_weight=weights.lm_weight, word_score=weights.word_score, wer=found)
