"""Log-probabilities of a part, computed once for a trained model and kept for every search."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lightasr.data.batches import Utterance
from lightasr.decode.hypotheses import LogProbs
from lightasr.models.trained import Trained
from lightasr.progress import say, track

BATCH_SECONDS = 120.0


@dataclass(frozen=True)
class Scored:
    """Utterances in the order of their ids, their log-probabilities, and how long they took."""

    utterances: Sequence[Utterance]
    logp: Sequence[LogProbs]
    seconds: float
    device: str


def load_scored(path: Path, utterances: Sequence[Utterance]) -> Scored | None:
    """What is kept of these utterances; None where it is not there, or damaged."""
    ordered = sorted(utterances, key=lambda utterance: utterance.id)
    try:
        with safe_open(path, framework="numpy") as kept:
            facts = kept.metadata()
            if json.loads(facts["ids"]) != [utterance.id for utterance in ordered]:
                return None
            ends = np.cumsum(kept.get_tensor("frames"))
            whole = kept.get_tensor("logp")
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, ValueError) as error:
        say(f"{path}: damaged ({error}); the model scores this part again")
        return None
    return Scored(ordered, np.split(whole, ends[:-1]), float(facts["seconds"]), facts["device"])


def score_part(path: Path, trained: Trained, utterances: Sequence[Utterance]) -> Scored:
    """Run the model over a part, and keep what it says at `path`."""
    started = time.monotonic()
    found: dict[str, LogProbs] = {}
    with track("decode: log-probabilities", total=len(utterances)) as bar:
        for utterance, logp_tv in trained.score_utterances(list(utterances), BATCH_SECONDS):
            found[utterance.id] = logp_tv.numpy()
            bar.update()
    seconds = time.monotonic() - started
    ordered = sorted(utterances, key=lambda utterance: utterance.id)
    logp = [found[utterance.id] for utterance in ordered]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    tensors = {"logp": np.concatenate(logp), "frames": np.array([len(one) for one in logp])}
    facts = {
        "ids": json.dumps([utterance.id for utterance in ordered]),
        "seconds": repr(seconds),
        "device": str(trained.device),
    }
    save_file(tensors, temporary, metadata=facts)
    temporary.replace(path)
    return Scored(ordered, logp, seconds, str(trained.device))
