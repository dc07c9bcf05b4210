"""Log-probabilities of a part, computed once for a trained model and kept for every search."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lightasr.data.batches import Utterance
from lightasr.data.cuts import FEATURES
from lightasr.decode.hypotheses import LogProbs
from lightasr.models.trained import Trained
from lightasr.progress import say, track
from lightasr.verify import content_digest

BATCH_SECONDS = 120.0


@dataclass(frozen=True)
class Scored:
    """Utterances in the order of their ids, their log-probabilities, and how long they took."""

    utterances: Sequence[Utterance]
    logp: Sequence[LogProbs]
    seconds: float
    device: str
    source: str
    """What `made_from` says of the model and of the features."""


def made_from(train: Path, features: Path) -> str:
    """Stands for a model and for what it hears: a directory that is made again keeps its name."""
    files = (train / "model.safetensors", features / FEATURES)
    return " ".join(content_digest(path) for path in files)


def load_scored(path: Path, source: str, utterances: Sequence[Utterance]) -> Scored | None:
    """What is kept of these utterances; None, and a line that says why, where it is of no use."""
    ordered = sorted(utterances, key=lambda utterance: utterance.id)
    try:
        logp, facts = _read(path, source, [utterance.id for utterance in ordered])
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, ValueError) as error:
        say(f"{path}: of no use ({error}): the model scores this part again")
        return None
    return Scored(ordered, logp, float(facts["seconds"]), facts["device"], source)


def _read(path: Path, source: str, ids: list[str]) -> tuple[list[LogProbs], dict[str, str]]:
    with safe_open(path, framework="numpy") as kept:
        facts = kept.metadata() or {}
        if facts["source"] != source:
            raise ValueError("made from another model or from other features")
        if json.loads(facts["ids"]) != ids:
            raise ValueError("made of other utterances")
        ends = np.cumsum(kept.get_tensor("frames"))
        whole = kept.get_tensor("logp")
    if facts["crc32"] != str(zlib.crc32(whole.data)):
        raise ValueError("damaged")
    return np.split(whole, ends[:-1]), facts


def score_part(
    path: Path, source: str, trained: Trained, utterances: Sequence[Utterance], scratch: Path
) -> Scored:
    """Run the model over a part, and keep what it says at `path`; `scratch` is on the same disk."""
    started = time.monotonic()
    found: dict[str, LogProbs] = {}
    with track("decode: log-probabilities", total=len(utterances)) as bar:
        for utterance, logp_tv in trained.score_utterances(list(utterances), BATCH_SECONDS):
            found[utterance.id] = logp_tv.numpy()
            bar.update()
    seconds = time.monotonic() - started
    ordered = sorted(utterances, key=lambda utterance: utterance.id)
    logp = [found[utterance.id] for utterance in ordered]
    whole = np.concatenate(logp)
    tensors = {"logp": whole, "frames": np.array([len(one) for one in logp])}
    facts = {
        "source": source,
        "ids": json.dumps([utterance.id for utterance in ordered]),
        "seconds": repr(seconds),
        "device": str(trained.device),
        "crc32": str(zlib.crc32(whole.data)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = scratch / f".{path.name}.part"
    save_file(tensors, temporary, metadata=facts)
    temporary.replace(path)
    return Scored(ordered, logp, seconds, str(trained.device), source)
