"""Runs KenLM's programs: `lmplz` counts n-grams, `build_binary` writes its binary files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightasr.errors import LightasrError
from lightasr.progress import track

if TYPE_CHECKING:
    from lightasr import schema

ERROR_LINES = 12
# lmplz sorts on disk what does not fit, and by default asks for most of a machine's memory.
SORT_BYTES_MIN = 1 << 28
SORT_BYTES_MAX = 1 << 32
SORT_BYTES_PER_TEXT_BYTE = 40


@dataclass(frozen=True)
class Corpus:
    """A sentence a line, its units apart, and how often each unit occurs in it."""

    path: Path
    units: Counter[str]
    sentences: int
    left_out: int
    """Sentences that the tokenizer cannot write."""


def find_program(name: str) -> str:
    """A program of KenLM: beside this Python, where `make setup` puts it, or on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise LightasrError(
            f"{name} (KenLM) is neither beside {sys.executable} nor on the PATH: "
            "`make setup` builds it"
        )
    return found


def count_ngrams(lmplz: str, config: schema.LanguageModelSlice, corpus: Corpus, arpa: Path) -> bool:
    """Write the ARPA file; True if the text was too small to estimate the discounts from."""
    size = corpus.path.stat().st_size * SORT_BYTES_PER_TEXT_BYTE
    memory = min(max(size, SORT_BYTES_MIN), SORT_BYTES_MAX)
    command = [lmplz, "--order", str(config.order), "--text", str(corpus.path)]
    command += ["--arpa", str(arpa), "--memory", f"{memory}b", "--temp_prefix", f"{arpa}-sort"]
    command += ["--skip_symbols"]  # a text with its punctuation may hold `<s>`
    if config.prune:
        command += ["--prune", *(str(count) for count in config.prune[: config.order])]
    if len(corpus.units) > config.vocabulary:
        command += ["--limit_vocab_file", str(_write_vocabulary(corpus, config.vocabulary))]
    with track("lm: counts"):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode and "rerun with --discount_fallback" in result.stderr:
            _call([*command, "--discount_fallback"])
            return True
    _check(result)
    return False


def write_binary(
    build_binary: str, config: schema.LanguageModelSlice, arpa: Path, out: Path, scratch: Path
) -> None:
    """KenLM's file of a model."""
    options: list[str] = []
    if config.format == "trie":
        options += ["-T", str(scratch / "trie")]
    if config.bits is not None:
        options += ["-q", str(config.bits), "-b", str(config.bits)]
    with track("lm: binary"):
        _call([build_binary, *options, config.format, str(arpa), str(out)])


def _write_vocabulary(corpus: Corpus, size: int) -> Path:
    path = corpus.path.with_suffix(".vocabulary")
    ranked = sorted(corpus.units.items(), key=lambda item: (-item[1], item[0]))
    path.write_text("".join(f"{unit}\n" for unit, _ in ranked[:size]), encoding="utf-8")
    return path


def _call(command: list[str]) -> None:
    _check(subprocess.run(command, capture_output=True, text=True, check=False))


def _check(result: subprocess.CompletedProcess[str]) -> None:
    if result.returncode:
        tail = "\n".join(result.stderr.strip().splitlines()[-ERROR_LINES:])
        raise LightasrError(
            f"{Path(result.args[0]).name} failed with exit status {result.returncode}:\n{tail}"
        )
