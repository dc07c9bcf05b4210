"""Locks: one holder, also across machines; what a dead one leaves is taken over."""

from __future__ import annotations

import json
import os
import socket
import time
from multiprocessing import Queue, get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from lightasr import lock
from lightasr.errors import RetryError
from lightasr.lock import locked, read_holder


def leave(folder: Path, age: float = 0.0, **holder: object) -> Path:
    """A lock as another process left it, its last heartbeat `age` seconds ago."""
    me = {"host": socket.gethostname(), "pid": os.getpid(), "started": None, "job": None}
    path = folder / "lock"
    path.write_text(json.dumps({**me, **holder}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_lock_is_held_and_given_back(tmp_path: Path) -> None:
    with locked(tmp_path, "train lstm"):
        assert read_holder(tmp_path / "lock") == f"process {os.getpid()} on {socket.gethostname()}"
        with (
            pytest.raises(RetryError, match="train lstm: is being made by process"),
            locked(tmp_path, "train lstm"),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_holder_on_another_machine_is_believed_while_its_heart_beats(tmp_path: Path) -> None:
    leave(tmp_path, age=30, host="elsewhere", job="4711")
    with pytest.raises(RetryError, match=r"on elsewhere, job 4711"), locked(tmp_path, "x"):
        pass


@pytest.mark.parametrize(
    "holder",
    [
        {"host": "elsewhere", "age": lock.DEAD_AFTER_SECONDS + 5},
        {"pid": 2**22 + 1},
        {"started": "12345"},
    ],
    ids=["silent elsewhere", "gone here", "its number is another process's now"],
)
def test_a_dead_holder_is_taken_over(tmp_path: Path, holder: dict) -> None:
    leave(tmp_path, **holder)
    with locked(tmp_path, "x"):
        assert str(os.getpid()) in str(read_holder(tmp_path / "lock"))


def test_the_heart_beats_while_the_lock_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    with locked(tmp_path, "x"):
        os.utime(tmp_path / "lock", (0, 0))
        time.sleep(0.3)
        assert (tmp_path / "lock").stat().st_mtime > 1


def try_to_hold(folder: Path, start: Barrier, end: Barrier, answers: Queue) -> None:
    start.wait(20)
    try:
        with locked(folder, "x"):
            answers.put("got")
            end.wait(20)
    except RetryError:
        answers.put("refused")
        end.wait(20)


def test_of_many_that_find_a_dead_lock_one_gets_it(tmp_path: Path) -> None:
    leave(tmp_path, pid=2**22 + 1)
    context = get_context("fork")
    start, end, answers = context.Barrier(6), context.Barrier(6), context.Queue()
    processes = [
        context.Process(target=try_to_hold, args=(tmp_path, start, end, answers)) for _ in range(6)
    ]
    for process in processes:
        process.start()
    assert sorted(answers.get(timeout=20) for _ in processes) == ["got"] + ["refused"] * 5
    for process in processes:
        process.join(20)
