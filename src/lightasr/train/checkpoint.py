"""Checkpoints: whole or absent, loaded without running code, refused by any other experiment."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightasr.errors import LightasrError
from lightasr.progress import say


class DamagedCheckpoint(LightasrError):
    """A file that is no checkpoint, or not a whole one."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write beside, flush to the disk, rename."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def save_keeping_previous(path: Path, state: dict[str, Any]) -> None:
    """Like `save`; the checkpoint that was there stays as `previous.pt`."""
    previous = path.with_name("previous.pt")
    if path.exists():
        previous.unlink(missing_ok=True)
        previous.hardlink_to(path)
    save(path, state)


def load_last(path: Path, identity: str) -> dict[str, Any] | None:
    """The last checkpoint, or the one before where the last is damaged; None at the very start."""
    if not path.exists():
        return None
    try:
        return load(path, identity)
    except DamagedCheckpoint as damage:
        previous = path.with_name("previous.pt")
        if not previous.exists():
            raise
        say(f"{damage}; goes on from {previous.name}")
        return load(previous, identity)


def load(path: Path, identity: str | None = None) -> dict[str, Any]:
    """The state that `save` wrote; `identity` is what made it, where that matters."""
    try:
        # To the CPU: each process copies to its own GPU what the first one has saved from its.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DamagedCheckpoint(
            f"{path}: damaged checkpoint ({error}); delete it to start over"
        ) from None
    if identity is not None and state["identity"] != identity:
        raise LightasrError(
            f"{path}: made by another experiment or version ({state['identity']}, this is "
            f"{identity}); delete it to start over"
        )
    return state


def random_state() -> dict[str, Any]:
    """The state of every random generator a training draws from."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - what libraries draw from
    words = numpy_state["state"]["key"].astype(np.int64)  # torch has no full uint32
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": torch.from_numpy(words)}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """What `random_state` saved, put back."""
    python_version, words, gauss = state["python"]
    random.setstate((python_version, tuple(words), gauss))
    numpy_state = state["numpy"]
    words = numpy_state["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": words}})  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
