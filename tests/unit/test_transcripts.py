"""References and hypotheses in everybody's formats: what is read, and how each is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightasr.errors import LightasrError
from lightasr.score.transcripts import HYPOTHESIS, REFERENCE, read_pair, read_transcripts

REAL = Path(__file__).parents[2] / "../shared/data/librispeech_valid.tsv"
LIBRISPEECH = "84-1-0000 THE CAT SAT\n84-1-0001 NO\n"
KALDI = "84-1-0000  THE CAT\tSAT \n84-1-0001 NO\n"
TRN = "THE CAT SAT (84-1-0000)\nNO (84-1-0001)\n"
TSV = "id\ttext\n84-1-0000\tTHE  CAT SAT\n84-1-0001\tNO\n"
OURS = (
    "id\tspeaker\tseconds\treference\thypothesis\n"
    "84-1-0000\t84\t1.5\tTHE CAT SAT\tA CAT\n84-1-0001\t84\t2\tNO\t\n"
)


def write(folder: Path, text: str, name: str = "file") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", [LIBRISPEECH, KALDI, TRN, TSV, OURS, TSV.replace("\n", "\r\n")])
def test_every_format_says_the_same(tmp_path: Path, text: str) -> None:
    found = read_transcripts(write(tmp_path, text), REFERENCE)
    assert {name: (one.text, one.speaker) for name, one in found.items()} == {
        "84-1-0000": ("THE CAT SAT", "84"),
        "84-1-0001": ("NO", "84"),
    }


def test_of_our_decoded_files_each_side_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, OURS)
    decoded = read_pair(path, path)
    assert list(decoded["reference"]) == ["THE CAT SAT", "NO"]
    assert list(decoded["hypothesis"]) == ["A CAT", ""]
    assert list(decoded["seconds"]) == [1.5, 2]
    assert read_transcripts(path, HYPOTHESIS)["84-1-0000"].where == f"{path}:2"


def test_a_librispeech_folder_is_all_its_transcripts(tmp_path: Path) -> None:
    write(tmp_path, LIBRISPEECH, "dev/84/1/84-1.trans.txt")
    write(tmp_path, "85-2-0000 YES\n", "dev/85/2/85-2.trans.txt")
    assert list(read_transcripts(tmp_path / "dev", REFERENCE)) == [
        "84-1-0000",
        "84-1-0001",
        "85-2-0000",
    ]


def test_a_kaldi_folder_names_its_speakers(tmp_path: Path) -> None:
    write(tmp_path, "utt1 HELLO\nutt2 YOU\n", "test/text")
    write(tmp_path, "utt1 ann\nutt2 bob\n", "test/utt2spk")
    found = read_transcripts(tmp_path / "test", REFERENCE)
    assert [one.speaker for one in found.values()] == ["ann", "bob"]


@pytest.mark.parametrize(("name", "speaker"), [("ann-001", "ann"), ("ann_001", "ann"), ("001", "")])
def test_nist_ids_start_with_the_speaker(tmp_path: Path, name: str, speaker: str) -> None:
    assert (
        read_transcripts(write(tmp_path, f"HELLO ({name})\n"), REFERENCE)[name].speaker == speaker
    )


def test_the_order_is_the_references_and_an_empty_hypothesis_is_one(tmp_path: Path) -> None:
    reference = write(tmp_path, "a ONE\nb TWO\n", "ref")
    hypothesis = write(tmp_path, "b\na ONE\n", "hyp")
    decoded = read_pair(reference, hypothesis)
    assert decoded.to_dict("list") == {
        "id": ["a", "b"],
        "speaker": ["", ""],
        "reference": ["ONE", "TWO"],
        "hypothesis": ["ONE", ""],
    }


def test_the_hypothesis_may_name_the_speakers_and_a_list_overrides_all(tmp_path: Path) -> None:
    reference = write(tmp_path, "a ONE\nb TWO\n", "ref")
    hypothesis = write(tmp_path, "id\tspeaker\ttext\na\tann\tONE\nb\tbob\tTWO\n", "hyp")
    assert list(read_pair(reference, hypothesis)["speaker"]) == ["ann", "bob"]
    listed = write(tmp_path, "a eve\nb eve\nc dan\n", "utt2spk")
    assert list(read_pair(reference, hypothesis, listed)["speaker"]) == ["eve", "eve"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": no utterances in it: the file is empty"),
        ("\n \n", ": no utterances in it: the file is empty"),
        ("id\ttext\n", ": no utterances in it: there is only a header"),
        ("a ONE\nb TWO\na ONE\n", ":3: the id a is there twice, at "),
        ("ONE (a)\nTWO\n", ":2: expected `words (speaker-utterance)`"),
        ("id\tspeaker\na\tann\n", ":1: the header needs `id` and `reference` or `text`"),
        ("utt\ttext\na\tONE\n", ":1: the header needs `id`"),
        ("id\ttext\ttext\na\tONE\tONE\n", ":1: a column is there twice"),
        ("id\ttext\na\tONE\tTWO\n", ":2: 3 fields, the header has 2"),
        ("id\ttext\n \tONE\n", ":2: no id"),
        ("id\tseconds\ttext\na\tlong\tONE\n", ":2: a: seconds 'long' is no number of seconds"),
        ("id,text\na,ONE\n", ":1: columns are separated by tabs, not commas"),
        ('{"id": "a"}\n', ":1: JSON; give a TSV"),
    ],
)
def test_bad_files_are_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(LightasrError, match=re.escape(f"{path}{message}")):
        read_transcripts(path, REFERENCE)


def test_other_encodings_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a ONE\nb caf\xe9\n")
    with pytest.raises(LightasrError, match=re.escape(f"{path}:2: not UTF-8")):
        read_transcripts(path, REFERENCE)


def test_folders_without_transcripts_say_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, OURS, "test-clean.beam.tsv")
    with pytest.raises(LightasrError, match=r"name one of its files: test-clean.beam.tsv"):
        read_transcripts(tmp_path, REFERENCE)
    with pytest.raises(LightasrError, match="no such file or directory"):
        read_transcripts(tmp_path / "nowhere", REFERENCE)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "message"),
    [
        ("a ONE\nb TWO\n", "a ONE\n", "hyp: no line for b of "),
        ("a ONE\n", "a ONE\nb TWO\n", "hyp:2: b: no such utterance in "),
        ("a ONE\nb\n", "a ONE\nb TWO\n", "ref:2: empty reference of b"),
        ("ONE (ann-1)\nTWO (2)\n", "ann-1 ONE\n2 TWO\n", "ref:2: no speaker of 2, but of others"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_id(
    tmp_path: Path, reference: str, hypothesis: str, message: str
) -> None:
    ref, hyp = write(tmp_path, reference, "ref"), write(tmp_path, hypothesis, "hyp")
    with pytest.raises(LightasrError, match=re.escape(message)):
        read_pair(ref, hyp)


@pytest.mark.parametrize(
    ("lines", "message"),
    [("a ann\n", "utt2spk: no speaker of b"), ("a ann x\n", "utt2spk:1: expected `id speaker`")],
)
def test_a_list_of_speakers_is_whole(tmp_path: Path, lines: str, message: str) -> None:
    path = write(tmp_path, "a ONE\nb TWO\n")
    with pytest.raises(LightasrError, match=re.escape(message)):
        read_pair(path, path, write(tmp_path, lines, "utt2spk"))


@pytest.mark.skipif(not REAL.is_file(), reason="needs ../shared/data")
def test_a_manifest_of_real_speech_is_a_reference() -> None:
    found = read_transcripts(REAL, REFERENCE)
    assert len(found) == 124
    assert {one.speaker for one in found.values()} == {"84", "174"}
    assert all(one.seconds for one in found.values())
