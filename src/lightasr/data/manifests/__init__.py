"""Manifests: where the utterances of one's own recordings lie, and what is said in them."""

from __future__ import annotations

from pathlib import Path

from lightasr.data.manifests.entries import Entry, Gathered
from lightasr.data.manifests.kaldi import read_kaldi
from lightasr.data.manifests.lhotse import read_lhotse
from lightasr.data.manifests.tsv import read_tsv
from lightasr.errors import LightasrError

__all__ = ["Entry", "read_manifest"]


def read_manifest(
    path: Path,
    rejected: list[tuple[str, str]],
    split: str | None = None,
    transcribed: bool = True,
) -> list[Entry]:
    """The utterances of a TSV, a Kaldi data directory or a directory of lhotse manifests.

    In the manifest's order. What is wrong with one utterance goes to `rejected`, as id and reason;
    what is wrong with the manifest is an error. An utterance without text is bad, unless it is not
    `transcribed`.
    """
    gathered = Gathered(rejected, transcribed)
    if path.is_file():
        read_tsv(path, split, gathered)
    elif not path.is_dir():
        raise LightasrError(f"{path}: no such file or directory")
    elif (path / "wav.scp").exists():
        read_kaldi(path, split, gathered)
    else:
        read_lhotse(path, split, gathered)
    if not gathered.seen:
        raise LightasrError(f"{path}: no utterances in it")
    return list(gathered.entries.values())
