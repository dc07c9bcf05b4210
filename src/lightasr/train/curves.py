"""Learning curves: a CSV that any program (`dvc plots` too) reads, and TensorBoard's own files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


def write_curves(rows: Sequence[dict[str, float]], out: Path) -> None:
    """`curves.csv` and `tensorboard/`, a point an epoch; the first two columns say which."""
    columns = list(rows[0])
    with (out / "curves.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    with SummaryWriter(str(out / "tensorboard")) as board:
        for row in rows:
            for name in columns[2:]:
                board.add_scalar(name, row[name], int(row["step"]))
