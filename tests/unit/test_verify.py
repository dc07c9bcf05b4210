"""What is on the disk against the receipts of the jobs that made it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lightasr import verify
from lightasr.errors import LightasrError
from lightasr.plan import load_plan
from lightasr.verify import (
    Compare,
    damage,
    damage_text,
    discard,
    find_damage,
    fingerprints,
    finished,
    not_made,
)
from planning import finish, write_study

CREATED, LATER = 1_700_000_000, 1_700_000_100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished directory of one small and one nested file."""
    made = tmp_path / "results" / "train" / "lstm-0123456789"
    (made / "logs").mkdir(parents=True)
    (made / "weights").write_bytes(b"0123456789")
    (made / "logs" / "events").write_bytes(b"abc")
    receipt = {"source_digest": "5ca1ab1e", "files": fingerprints(made)}
    (made / "run.json").write_text(json.dumps(receipt))
    for path in made.rglob("*"):
        os.utime(path, (CREATED, CREATED))
    return made


def rewrite(path: Path, content: bytes, at: int = LATER) -> None:
    path.write_bytes(content)
    os.utime(path, (at, at))


def test_what_nobody_touched_is_whole(folder: Path) -> None:
    assert [damage(folder, compare) for compare in Compare] == [None, None, None]


@pytest.mark.parametrize("compare", list(Compare))
def test_another_size_and_a_missing_file_are_always_seen(folder: Path, compare: Compare) -> None:
    rewrite(folder / "weights", b"012345678", at=CREATED)
    assert damage(folder, compare) == "weights has 9 bytes, was made with 10"
    (folder / "weights").unlink()
    assert damage(folder, compare) == "weights is missing"


def test_other_content_of_the_same_size_is_seen_where_a_file_was_written_since(
    folder: Path,
) -> None:
    rewrite(folder / "logs" / "events", b"abX")
    assert damage(folder, Compare.SIZES) is None
    reason = "logs/events has other content than it was made with"
    assert damage(folder, Compare.WRITTEN_SINCE) == reason
    assert damage(folder, Compare.EVERYTHING) == reason


def test_other_content_with_its_old_age_is_seen_when_everything_is_read(folder: Path) -> None:
    rewrite(folder / "weights", b"012345678X", at=CREATED)
    assert damage(folder, Compare.WRITTEN_SINCE) is None
    assert damage(folder, Compare.EVERYTHING) is not None


def test_what_was_copied_here_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh copy is newer than its receipt; that it is whole need not be found out again."""
    os.utime(folder / "weights", (LATER, LATER))
    read: list[str] = []
    digest = verify.content_digest
    monkeypatch.setattr(verify, "content_digest", lambda p: (read.append(p.name), digest(p))[1])
    assert damage(folder) is None
    assert damage(folder) is None
    assert read == ["weights"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00\xff"])
def test_what_is_no_receipt_is_damage(folder: Path, text: str) -> None:
    (folder / "run.json").write_bytes(text.encode("latin-1"))
    assert damage(folder) == "run.json is not a receipt"


def test_a_discarded_directory_counts_as_not_made(folder: Path, tmp_path: Path) -> None:
    (folder / "weights").unlink()
    folders = finished(tmp_path, ["train", "decode"])
    assert folders == [folder]
    discard(find_damage(folders, Compare.WRITTEN_SINCE))
    assert finished(tmp_path, ["train"]) == []
    assert (folder / "logs" / "events").exists(), "kept until it is made again"


def test_what_the_plan_asks_for_is_missing_until_it_is_made(project: Path) -> None:
    write_study(project)
    plan = load_plan(project, "smoke", ["mine"])
    (train,) = plan.of_stage("train")
    assert not_made(plan, ["train", "measure"]) == [project / train.dir]
    assert (project / "results/measure").is_dir(), "of the study's stages, too, that have no job"
    finish(plan, [train])
    assert not_made(plan, ["train", "measure"]) == []
    assert not_made(plan, ["decode"]) != []


def test_damage_and_what_is_missing_are_told_apart(folder: Path) -> None:
    whole = "1 of 1 directories are as they were made."
    assert damage_text([folder], [], False, None) == whole
    assert (
        damage_text([folder], [], False, []) == f"{whole}\nNo directories of the plan to be made."
    )
    assert "\n1 directory of the plan" in damage_text([folder], [], False, [folder])
    assert "\n2 directories of the plan" in damage_text([folder], [], False, [folder, folder])


def test_a_stage_nobody_knows_is_refused_with_the_nearest() -> None:
    with pytest.raises(LightasrError, match=r"no stage 'trian'; did you mean 'train'\?"):
        verify.check_stages(["trian"])
