"""The workflow where an accounting database tells the states of jobs, as most sites have it."""

from __future__ import annotations

from pathlib import Path

import accounting
import cluster
import pytest
from sites import Site

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(cluster.missing() is not None, reason=str(cluster.missing())),
    pytest.mark.skipif(accounting.missing() is not None, reason=str(accounting.missing())),
    pytest.mark.timeout(600),
]


def test_sacct_tells_how_jobs_ended(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with accounting.accounting(tmp_path) as lines, cluster.cluster(folder, lines):
        site = Site.create(tmp_path / "site")
        site.study("one", {"one": {}})
        site.start("one", status="sacct", targets=("features",))
        site.finish()
        told = cluster.run("sacct", "--noheader", "--parsable2", "-X", "--format=State,Comment,End")
    ended = [line.split("|")[0] for line in told.splitlines()]
    assert len(ended) == 6, "archives and features of three parts"
    assert set(ended) == {"COMPLETED"}
