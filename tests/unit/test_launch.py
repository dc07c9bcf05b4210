"""How processes of one training are started, on one machine and on several."""

from __future__ import annotations

import pytest

from lightasr.errors import LightasrError
from lightasr.train.launch import check_devices, meeting


def test_processes_of_one_machine_need_no_place_to_meet() -> None:
    assert meeting(1, None) == ["--standalone"]


def test_machines_meet_at_the_named_one() -> None:
    options = meeting(2, "n1:29500")
    assert options[options.index("--nnodes") + 1] == "2"
    assert options[options.index("--rdzv-endpoint") + 1] == "n1:29500"


def test_jobs_that_share_a_node_meet_at_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for job in ("41", "42"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        options = meeting(2, "n1")
        ends.append(options[options.index("--rdzv-endpoint") + 1])
        assert options[options.index("--rdzv-id") + 1] == job
    assert len(set(ends)) == 2
    assert all(end.startswith("n1:") for end in ends)


def test_several_machines_without_a_place_to_meet_are_refused() -> None:
    with pytest.raises(LightasrError, match="--rendezvous must name one of the nodes"):
        meeting(2, None)


def test_more_processes_than_reserved_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    check_devices(2)
    with pytest.raises(LightasrError, match="--devices 4: only 2 reserved"):
        check_devices(4)


def test_without_a_reservation_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    check_devices(4)
