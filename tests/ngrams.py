"""Small n-gram models for tests: estimated from drawn sentences, written in ARPA format."""

from __future__ import annotations

import gzip
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

Words = tuple[str, ...]
Model = dict[Words, tuple[float, float]]
"""Probability of each n-gram's last word, and the back-off weight of the n-gram as a history."""

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"


def draw_sentences(seed: int, count: int = 300, words: int = 25, turn: int = 7) -> list[list[str]]:
    """Words with a natural spread of counts, each hanging on the one before it by way of `turn`."""
    draw = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(words)]
    weights = [1 / rank for rank in range(1, words + 1)]
    sentences = []
    for _ in range(count):
        sentence = draw.choices(vocabulary, weights, k=1)
        for _ in range(draw.randint(0, 9)):
            first = vocabulary.index(sentence[-1]) * turn % words
            sentence += draw.choices((vocabulary + vocabulary)[first : first + words // 3])
        sentences.append(sentence)
    return sentences


def estimate(
    sentences: Sequence[Sequence[str]], order: int, least: Sequence[int] = (1, 1, 2)
) -> Model:
    """Witten and Bell's estimate; n-grams of order n that occur less than `least[n - 1]` go."""
    padded = [(BEGIN, *sentence, END) for sentence in sentences]
    counts = Counter(
        words[at : at + n]
        for words in padded
        for n in range(1, order + 1)
        for at in range(len(words) - n + 1)
    )
    del counts[BEGIN,]
    total = sum(count for words, count in counts.items() if len(words) == 1)
    kinds = sum(len(words) == 1 for words in counts)
    model: Model = {w: (c / (total + kinds), 1.0) for w, c in counts.items() if len(w) == 1}
    model[UNKNOWN,] = kinds / (total + kinds), 1.0
    model[BEGIN,] = 1.0, 1.0
    for n in range(2, order + 1):
        needed = least[min(n, len(least)) - 1]
        kept = {w: c for w, c in counts.items() if len(w) == n and c >= needed and w[:-1] in model}
        follow = Counter(words[:-1] for words in counts if len(words) == n)
        said: Counter[Words] = Counter()
        for words, count in counts.items():
            if len(words) == n:
                said[words[:-1]] += count
        found = {}
        for words, count in kept.items():
            history = words[:-1]
            lower = probability(model, words[1:])
            top = count + follow[history] * lower
            found[words] = top / (said[history] + follow[history])
        add(model, found)
    return model


def add(model: Model, found: dict[Words, float]) -> None:
    """The n-grams of one more order, and the weights that they leave to their histories."""
    left: dict[Words, list[float]] = {}
    for words, p in found.items():
        sums = left.setdefault(words[:-1], [1.0, 1.0])
        sums[0] -= p
        sums[1] -= probability(model, words[1:])
    for history, (above, below) in left.items():
        model[history] = model[history][0], above / below
    model.update({words: (p, 1.0) for words, p in found.items()})


def probability(model: Model, words: Words) -> float:
    """Of the last word after those before it."""
    if words in model:
        return model[words][0]
    return model.get(words[:-1], (0.0, 1.0))[1] * probability(model, words[1:])


def arpa_text(model: Model) -> str:
    """A model in ARPA format."""
    highest = max(map(len, model))
    orders = [sorted(words for words in model if len(words) == n) for n in range(1, highest + 1)]
    lines = ["\\data\\", *(f"ngram {n}={len(part)}" for n, part in enumerate(orders, start=1))]
    for n, part in enumerate(orders, start=1):
        lines += ["", f"\\{n}-grams:"]
        for words in part:
            p, weight = model[words]
            tail = f"\t{math.log10(weight):.7f}" if n < highest else ""
            lines.append(f"{math.log10(p):.7f}\t{' '.join(words)}{tail}")
    return "\n".join([*lines, "", "\\end\\", ""])


def write_model(path: Path, model: Model) -> Path:
    """A file of it, gzipped if its name says so."""
    text = arpa_text(model).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path
