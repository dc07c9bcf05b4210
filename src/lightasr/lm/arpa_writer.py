"""Writes an n-gram model in ARPA format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lightasr.lm.arpa import Arpa, NGrams
from lightasr.progress import track

LINES = 100_000


def write_arpa(path: Path, arpa: Arpa) -> None:
    """As plain text; n-grams of the highest order have no back-off weight."""
    total = sum(len(ngrams.logp) for ngrams in arpa.orders)
    with (
        path.open("w", encoding="utf-8", newline="\n") as stream,
        track("lm: write", total=total) as bar,
    ):
        stream.write("\\data\\\n")
        for order, ngrams in enumerate(arpa.orders, start=1):
            stream.write(f"ngram {order}={len(ngrams.logp)}\n")
        for order, ngrams in enumerate(arpa.orders, start=1):
            stream.write(f"\n\\{order}-grams:\n")
            highest = order == len(arpa.orders)
            for first in range(0, len(ngrams.logp), LINES):
                stream.writelines(_lines(arpa.words, ngrams, first, highest))
                bar.update(min(LINES, len(ngrams.logp) - first))
        stream.write("\n\\end\\\n")


def _lines(words: list[str], ngrams: NGrams, first: int, highest: bool) -> Iterator[str]:
    part = slice(first, first + LINES)
    rows, logps = ngrams.words[part].tolist(), ngrams.logp[part].tolist()
    for row, logp, backoff in zip(rows, logps, ngrams.backoff[part].tolist(), strict=True):
        spelt = " ".join([words[number] for number in row])
        yield f"{logp:.8g}\t{spelt}\n" if highest else f"{logp:.8g}\t{spelt}\t{backoff:.8g}\n"
