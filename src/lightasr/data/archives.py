"""Stage `archive`: the built-in corpus is made, any other part comes from its publisher."""

from __future__ import annotations

from pathlib import Path

from lightasr.data.sample.build import build_lm_text, build_part
from lightasr.errors import LightasrError
from lightasr.schema import ArchiveSlice
from lightasr.threads import usable_cores


def run(config: ArchiveSlice, inputs: dict[str, Path], out: Path, work: Path) -> None:
    """`out/<part>.tar.gz`, or `out/librispeech-lm-norm.txt.gz` for the text."""
    if config.sample is None:
        raise LightasrError(f"{config.corpus}: {config.part}: only the built-in corpus can be made")
    if config.part == "lm-text":
        build_lm_text(config.sample, out)
    else:
        build_part(config.part, config.sample, out, processes=usable_cores())
