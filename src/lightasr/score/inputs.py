"""What `lightasr score` and `lightasr compare` are given: files of any system, or our own runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from lightasr.errors import LightasrError
from lightasr.plan import Plan
from lightasr.score.transcripts import read_pair
from lightasr.score.wer import read_decoded


def decoded_file(project: Path, decode: str, of: str | None) -> Path:
    """The file of one part under one decoder in the directory of a decoded run."""
    folder = project / decode
    if not folder.is_dir():
        raise LightasrError(f"{folder}: not decoded yet; run the workflow, or `lightasr decode`")
    known = sorted(path.stem for path in folder.glob("*.tsv"))
    if of not in known:
        asked = "which part and decoder?" if of is None else f"--of {of} is not there:"
        raise LightasrError(f"{folder}: {asked} give --of, one of {', '.join(known)}")
    return folder / f"{of}.tsv"


def read_scored(names: Sequence[str], speakers: Path | None) -> tuple[pd.DataFrame, str]:
    """REF and HYP, or one decoded file that holds both; and what to call it."""
    if len(names) == 2:
        return read_pair(Path(names[0]), Path(names[1]), speakers), names[1]
    if len(names) > 2:
        raise LightasrError(
            f"expected a run, or a reference and a hypothesis, found {len(names)}: "
            "`lightasr compare REF HYP_A HYP_B` compares two systems"
        )
    _check_no_speakers(speakers)
    return read_decoded(Path(names[0])), names[0]


def read_compared(
    names: Sequence[str], of: str | None, speakers: Path | None, read_plan: Callable[[], Plan]
) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, str]]:
    """REF and two HYPs, or two decoded files or runs, which hold their references; and names."""
    if len(names) == 3:
        reference = Path(names[0])
        a, b = (read_pair(reference, Path(name), speakers) for name in names[1:])
        return a, b, (names[1], names[2])
    if len(names) != 2:
        raise LightasrError(
            "expected a reference and two hypotheses, or two runs or decoded files, which hold "
            f"their reference; found {len(names)}"
        )
    _check_no_speakers(speakers)
    first, second = (_file_of(name, of, read_plan) for name in names)
    return read_decoded(first), read_decoded(second), (str(first), str(second))


def _file_of(name: str, of: str | None, read_plan: Callable[[], Plan]) -> Path:
    """A decoded file as given, else that of a run; the plan is read only then."""
    if Path(name).is_file():
        return Path(name)
    plan = read_plan()
    return decoded_file(plan.project, plan.run(name).decode.dir, of)


def _check_no_speakers(speakers: Path | None) -> None:
    if speakers is not None:
        raise LightasrError(f"--speakers {speakers}: a decoded file names its speakers itself")
