"""Writes results of training, decoding and scoring as the stages leave them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightasr.score import wer
from lightasr.score.study import SeedRun

DIGEST = "5ca1ab1e"
Decoded = Sequence[tuple[str, str, str, str]]
"""id, speaker, reference, hypothesis"""


def make_run(
    root: Path,
    name: str,
    seed: int,
    decoded: Mapping[str, Decoded],
    facts: Mapping[str, Any] | None = None,
    curves: Sequence[str] = ("1,10,60,0.001,90.5,3.1,80.0,0.9,0.4",),
    source_digest: str = DIGEST,
) -> SeedRun:
    """The directories of one training; `decoded` is keyed by `<part>.<decoder>`."""
    directories = {
        stage: root / stage / f"{name}-{seed:010x}" for stage in ("train", "decode", "score")
    }
    for directory in directories.values():
        directory.mkdir(parents=True)
        run = {"source_digest": source_digest, "git_commit": "c0ffee", "host": "node1"}
        write_json(directory / "run.json", run)
    train, decode, score = directories.values()
    write_json(train / "run.json", read_json(train / "run.json") | dict(facts or {}))
    header = "epoch,step,seconds,lr,train_loss,grad_norm,dev_loss,dev_wer,dev_cer"
    (train / "curves.csv").write_text("\n".join([header, *curves]) + "\n", encoding="utf-8")
    _write_decoded(decode, decoded)
    wer.run(SimpleNamespace(bootstrap_samples=100, seed=1), {"decode": decode}, score, score)
    return SeedRun(seed, train, decode, score)


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(tree), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return tree


def _write_decoded(decode: Path, decoded: Mapping[str, Decoded]) -> None:
    parts: dict[str, dict[str, dict[str, float]]] = {}
    for name, utterances in decoded.items():
        part, decoder = name.split(".")
        lines = ["id\tspeaker\tseconds\treference\thypothesis"]
        lines += [f"{i}\t{speaker}\t4.0\t{ref}\t{hyp}" for i, speaker, ref, hyp in utterances]
        (decode / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        timing = {"seconds": 2.0, "audio_seconds": 4.0 * len(utterances)}
        parts.setdefault(part, {})[decoder] = timing | {"utterances": len(utterances)}
    write_json(decode / "decode.json", {"tuned": {}, "parts": parts})
