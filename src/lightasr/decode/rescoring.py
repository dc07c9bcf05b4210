"""Scores the hypotheses of the beam search anew: a neural language model has its say, too."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

import jiwer
import numpy as np
from numpy.typing import NDArray

from lightasr.decode.beam import with_confidence
from lightasr.decode.hypotheses import Found, Hypothesis
from lightasr.lm.neural.scoring import TrainedLanguageModel, load_language_model
from lightasr.progress import say, track

# Weights that are tried on the dev part, then halves of the step around the best one.
STEP, MOST, REFINEMENTS = 0.25, 2.0, 3

Logps = Sequence[NDArray[np.float64]]
"""What the neural language model says of each of them."""


@dataclass(frozen=True)
class Rescoring:
    """The best weight, and all that were tried."""

    weights: dict[str, float]
    """`neural_weight`: of log P(text) in a hypothesis' score."""
    surface: list[dict[str, float]]
    """`neural_weight` and `wer` of each weight."""


def rescore(
    found: Mapping[str, tuple[Found, float]], dev: str, references: Sequence[str], folder: Path
) -> tuple[dict[str, tuple[Found, float]], Rescoring]:
    """The hypotheses of each part in their new order, and the seconds they took in all.

    The weight is the best one for the dev part, of which alone references are asked.
    """
    model = load_language_model(folder)
    logps: dict[str, Logps] = {}
    seconds: dict[str, float] = {}
    with track("decode: rescore", total=len(found)) as bar:
        for part, (nbest, searching) in found.items():
            started = time.monotonic()
            logps[part] = score_nbest(model, nbest)
            seconds[part] = searching + time.monotonic() - started
            bar.update(1, part=part)
    tuned = tune_weight(found[dev][0], logps[dev], references)
    weight = tuned.weights["neural_weight"]
    say(f"rescored: tuned on {dev}: weight {weight:g}")
    return {
        part: (reorder(nbest, logps[part], weight), seconds[part])
        for part, (nbest, _) in found.items()
    }, tuned


def score_nbest(model: TrainedLanguageModel, found: Found) -> Logps:
    """log P of the text of each hypothesis of each utterance."""
    flat = model.log_probabilities([one.text for nbest in found for one in nbest])
    bounds = accumulate((len(nbest) for nbest in found), initial=0)
    return [flat[first:last] for first, last in pairwise(bounds)]


def reorder(found: Found, logps: Logps, weight: float) -> Found:
    """Each utterance's hypotheses by `score + weight * log P(text)`, the best one first."""
    reordered: Found = []
    for nbest, logp in zip(found, logps, strict=True):
        scores = _scores(nbest, logp, weight)
        order = np.argsort(-scores, kind="stable")
        reordered.append(
            with_confidence([replace(nbest[i], score=float(scores[i])) for i in order])
        )
    return reordered


def tune_weight(found: Found, logps: Logps, references: Sequence[str]) -> Rescoring:
    """The weight of the lowest word error rate; of several the smallest."""
    surface: dict[float, float] = {}

    def attempt(weight: float) -> None:
        if weight >= 0 and weight not in surface:
            best = [
                nbest[int(np.argmax(_scores(nbest, logp, weight)))].text
                for nbest, logp in zip(found, logps, strict=True)
            ]
            surface[weight] = float(jiwer.wer(list(references), best))

    def chosen() -> float:
        return min(surface, key=lambda weight: (surface[weight], weight))

    for weight in np.arange(0, MOST + STEP, STEP).tolist():
        attempt(weight)
    for halving in range(1, REFINEMENTS + 1):
        centre, step = chosen(), STEP / 2**halving
        attempt(centre - step)
        attempt(centre + step)
    points = [{"neural_weight": weight, "wer": wer} for weight, wer in surface.items()]
    return Rescoring({"neural_weight": chosen()}, points)


def _scores(
    nbest: Sequence[Hypothesis], logp: NDArray[np.float64], weight: float
) -> NDArray[np.float64]:
    return np.array([one.score for one in nbest]) + weight * logp
