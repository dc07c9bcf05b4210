"""The page of one system's errors: every utterance with an error, aligned word by word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lightasr.page.render import fact_text, write_page
from lightasr.score.detail import CONFUSION_TITLES, Detail, Utterance, worst_utterances
from lightasr.score.detail_text import points

UNFOLDED = 100
"""Utterances that are seen at once; a browser lays out the others when a fold is opened."""
IN_A_FOLD = 200
MOST = 5000
"""Beyond these a page takes seconds to open."""


@dataclass(frozen=True)
class Fold:
    title: str
    utterances: Sequence[Utterance]


def write_errors_page(decoded: pd.DataFrame, detail: Detail, name: str, out_html: Path) -> None:
    """Write the page; `name` says which hypotheses these are."""
    worst = worst_utterances(decoded, MOST)
    interval = detail.interval
    write_page(
        Path(__file__).with_name("errors.html"),
        out_html,
        name=name,
        wer=f"{100 * (detail.summary['wer'] or 0):.2f} %"
        + (f", 95 % interval over speakers {points(interval)}" if interval else ""),
        facts={name: fact_text(value) for name, value in _facts(detail).items()},
        detail=detail,
        confusion_titles=CONFUSION_TITLES,
        first=worst[:UNFOLDED],
        folds=list(_folds(worst)),
        shown=len(worst),
        left_out=detail.wrong_utterances - len(worst),
    )


def _facts(detail: Detail) -> dict[str, object]:
    summary = detail.summary
    return {
        "character error rate": f"{100 * (summary['cer'] or 0):.2f} %",
        "words": summary["words"],
        "substituted": summary["substitutions"],
        "inserted": summary["insertions"],
        "deleted": summary["deletions"],
        "utterances": summary["utterances"],
        "with errors": detail.wrong_utterances,
        "speakers": len(detail.by_speaker) or None,
    }


def _folds(worst: Sequence[Utterance]) -> Iterator[Fold]:
    for start in range(UNFOLDED, len(worst), IN_A_FOLD):
        some = worst[start : start + IN_A_FOLD]
        most, fewest = some[0].errors, some[-1].errors
        errors = f"{most}" if most == fewest else f"{most} to {fewest}"
        plural = "" if most == 1 else "s"
        yield Fold(
            f"Utterances {start + 1:,} to {start + len(some):,}, with {errors} error{plural}", some
        )
