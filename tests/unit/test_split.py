"""`lightasr data split`: one TSV into parts that share no speaker."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lightasr import cli
from lightasr.data.manifests import read_manifest
from lightasr.data.manifests.split import split_tsv
from lightasr.errors import LightasrError

SPEAKERS = [f"s{number}" for number in range(10)]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Ten speakers with five recordings each."""
    path = tmp_path / "mine" / "all.tsv"
    lines = ["id\tspeaker\taudio\ttext\taccent"]
    for speaker in SPEAKERS:
        for number in range(5):
            name = f"{speaker}-{number}"
            lines.append(f"{name}\t{speaker}\twav/{name}.wav\tHELLO {number}\tnorth")
            (path.parent / "wav").mkdir(parents=True, exist_ok=True)
            (path.parent / "wav" / f"{name}.wav").touch()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t")


def test_parts_share_no_speaker_and_nothing_is_lost(mine: Path, tmp_path: Path) -> None:
    found = split_tsv(mine, tmp_path / "split.tsv", {"test": 3, "dev": 2})
    table = read(tmp_path / "split.tsv")
    assert {part: len(got.speakers) for part, got in found.items()} == {
        "train": 5,
        "test": 3,
        "dev": 2,
    }
    assert (table.groupby("speaker")["split"].nunique() == 1).all()
    assert (
        table.groupby("split")["speaker"].nunique() == pd.Series({"dev": 2, "test": 3, "train": 5})
    ).all()
    others = read(mine).drop(columns="audio")
    pd.testing.assert_frame_equal(table.drop(columns=["audio", "split"]), others)


def test_every_part_is_read_from_the_new_place(mine: Path, tmp_path: Path) -> None:
    """Audio paths count from the TSV that they stand in."""
    out = tmp_path / "manifests" / "split.tsv"
    out.parent.mkdir()
    split_tsv(mine, out, {"test": 3, "dev": 2})
    rejected: list[tuple[str, str]] = []
    sizes = {part: len(read_manifest(out, rejected, part)) for part in ("train", "dev", "test")}
    assert sizes == {"train": 25, "dev": 10, "test": 15}
    assert rejected == []


def test_who_is_held_out_hangs_on_names_alone(mine: Path, tmp_path: Path) -> None:
    """Neither on the order of lines nor on how many speakers the dev part gets."""
    split_tsv(mine, tmp_path / "a.tsv", {"test": 3, "dev": 2})
    head, *lines = mine.read_text(encoding="utf-8").splitlines()
    mine.write_text("\n".join([head, *reversed(lines)]), encoding="utf-8")
    split_tsv(mine, tmp_path / "b.tsv", {"test": 3, "dev": 4})
    tested = [set(t[t["split"] == "test"]["id"]) for t in map(read, tmp_path.glob("?.tsv"))]
    assert tested[0] == tested[1]


def test_some_utterances_of_each_held_out_speaker(mine: Path, tmp_path: Path) -> None:
    split_tsv(mine, tmp_path / "split.tsv", {"test": 3, "dev": 0}, utterances=2)
    table = read(tmp_path / "split.tsv")
    assert (table[table["split"] == "test"].groupby("speaker").size() == 2).all()
    unused = set(table[table["split"] == "unused"]["speaker"])
    assert unused == set(table[table["split"] == "test"]["speaker"])
    assert (table["split"] == "train").sum() == 35


@pytest.mark.parametrize(
    ("held_out", "lines", "message"),
    [
        ({"test": 10, "dev": 0}, [], "10 speakers to hold out of 10: nobody is left"),
        (
            {"test": 1},
            ["id\tspeaker\taudio\tsplit", "a\ts\ta.wav\tdev"],
            "a column 'split' already",
        ),
        ({"test": 1}, ["id\tspeaker\taudio"], "no utterances in it"),
        ({"test": 1}, ["id\taudio", "a\ta.wav"], "no column 'speaker' in its first line"),
        ({"test": 1}, ["id\tspeaker\taudio", "a\ts"], ":2: 2 fields, the header has 3"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    mine: Path, tmp_path: Path, held_out: dict[str, int], lines: list[str], message: str
) -> None:
    if lines:
        mine.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(LightasrError, match=message) as caught:
        split_tsv(mine, tmp_path / "split.tsv", held_out)
    assert str(mine) in str(caught.value)
    assert not (tmp_path / "split.tsv").exists()


def test_the_command_says_what_each_part_got(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "split.tsv"
    command = ["lightasr", "data", "split", str(mine), "--test", "3", "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    said = sorted(line.split() for line in capsys.readouterr().out.splitlines())
    assert said == [
        ["test", "15", "utterances", "3", "speakers"],
        ["train", "35", "utterances", "7", "speakers"],
    ]
