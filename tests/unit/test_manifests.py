"""Manifests of one's own recordings: three forms, and what is wrong with each is told by name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lhotse import CutSet, MonoCut, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse import Recording as LhotseRecording
from lhotse.audio import AudioSource

from lightasr.data.manifests import Entry, read_manifest
from lightasr.errors import LightasrError

Rejected = list[tuple[str, str]]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def read(path: Path, split: str | None = None) -> tuple[list[Entry], Rejected]:
    rejected: Rejected = []
    return read_manifest(path, rejected, split), rejected


def refused(path: Path, split: str | None = None) -> str:
    with pytest.raises(LightasrError) as caught:
        read(path, split)
    return str(caught.value)


# --- TSV ----------------------------------------------------------------------------------------


def tsv(folder: Path, *lines: str, header: str = "id speaker audio text", end: str = "\n") -> Path:
    """A manifest; columns are parted by single spaces here, words of a text by underscores."""
    written = [line.replace(" ", "\t").replace("_", " ") for line in (header, *lines)]
    path = folder / "mine.tsv"
    path.write_bytes("".join(line + end for line in written).encode())
    return path


def test_a_tsv_gives_utterances_in_its_order_with_audio_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "wav/b.wav", "a.flac")
    entries, rejected = read(tsv(tmp_path, "b Ann wav/b.wav HELLO_THERE", "a Bob a.flac GOOD_BYE"))
    assert entries == [
        Entry("b", "Ann", "HELLO THERE", tmp_path / "wav" / "b.wav"),
        Entry("a", "Bob", "GOOD BYE", tmp_path / "a.flac"),
    ]
    assert rejected == []


def test_columns_may_stand_in_any_order_and_others_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    path = tsv(
        tmp_path,
        "YES 1 x a.wav 7 2.5 s 0.5",
        header="text channel accent audio id seconds speaker start",
    )
    assert read(path)[0] == [Entry("7", "s", "YES", tmp_path / "a.wav", 0.5, 2.5, 1)]


def test_seconds_without_a_start_only_inform(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    header = "id speaker audio text start seconds"
    path = tsv(tmp_path, "a s a.wav YES  2.5", "b s a.wav YES 0 2.5", header=header)
    whole, first = read(path)[0]
    assert (whole.start, whole.seconds) == (0, None)
    assert (first.start, first.seconds) == (0, 2.5)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_any_editor_may_have_written_it(tmp_path: Path, end: str, mark: bytes) -> None:
    touch(tmp_path, "ä.wav")
    path = tsv(tmp_path, "é s ä.wav Ünï\u2028cödé", "", end=end)
    path.write_bytes(mark + path.read_bytes())
    (entry,) = read(path)[0]
    assert (entry.id, entry.text) == ("é", "Ünï\u2028cödé")


def test_a_split_chooses_lines(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    lines = ["a s a.wav YES dev", "b s a.wav NO test", "a s a.wav NO train"]
    path = tsv(tmp_path, *lines, header="id speaker audio text split")
    assert [entry.text for entry in read(path, "train")[0]] == ["NO"]
    assert "there are: dev, test, train" in refused(path, "valid")


@pytest.mark.parametrize(
    ("line", "utterance", "reason"),
    [
        ("b s a.wav ", "b", "no text"),
        ("b s none.wav YES", "b", "no audio file '{folder}/none.wav'"),
        ("b s sub YES", "b", "no audio file '{folder}/sub'"),
        ("b s  YES", "b", "no audio"),
        ("b  a.wav YES", "b", "no speaker"),
        ("a s a.wav YES", "a", "the id is there twice, at {path}:2 too"),
        (" s a.wav YES", "(no id)", "no id"),
        ("b/c s a.wav YES", "b/c", "the id 'b/c' has a slash, which no id may"),
        ("b_c s a.wav YES", "b c", "the id 'b c' has a space, which no id may"),
        ("b\x07 s a.wav YES", "b\\x07", "the id 'b\\x07' has a control character"),
        ("b s a.wav YES  1,5", "b", "seconds '1,5' is no number of seconds"),
        ("b s a.wav YES -1 ", "b", "start '-1' is no number of seconds"),
        ("b s a.wav YES 0 0", "b", "seconds '0' is no number of seconds"),
        ("b s a.wav YES nan ", "b", "start 'nan' is no number of seconds"),
        ("b s a.wav YES   left", "b", "channel 'left' is no number of a channel"),
    ],
)
def test_what_is_wrong_with_one_utterance_leaves_it_alone_out(
    tmp_path: Path, line: str, utterance: str, reason: str
) -> None:
    touch(tmp_path, "a.wav", "sub/b.wav")
    header = "id speaker audio text start seconds channel"
    path = tsv(tmp_path, "a s a.wav YES   ", line + " " * (6 - line.count(" ")), header=header)
    entries, rejected = read(path)
    assert [entry.id for entry in entries] == ["a"]
    ((shown, told),) = rejected
    assert shown == utterance
    assert told.startswith(f"{path}:3: {reason.format(folder=tmp_path, path=path)}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ": no header in its first line"),
        (b"id\tspeaker\taudio\ttext\n\n", ": no utterances in it"),
        (b"id\tspeaker\taudio\n", ": no column 'text' in its first line; there are: 'id', 's"),
        (b"id\tSpeaker\taudio\ttext\n", "no column 'speaker'.*did you mean 'Speaker'?"),
        (b"id,speaker,audio,text\n", ": columns are separated by tabs, not commas"),
        (b"id\tid\tspeaker\taudio\ttext\n", ": two columns 'id' in its first line"),
        (b"id\tspeaker\taudio\ttext\na\ts\ta.wav\tx\ty\n", ":2: 5 fields, the header has 4"),
        (b'id\tspeaker\taudio\ttext\na\ts\ta.wav\t"x\ty"\n', "quotes do not protect it"),
        (b"id\tspeaker\taudio\ttext\na\ts\ta.wav\t\xe9\n", ":2: not UTF-8 text"),
        ("id\tspeaker".encode("utf-16"), ": UTF-16 text: save it as UTF-8"),
    ],
)
def test_what_is_wrong_with_a_tsv_is_an_error(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "mine.tsv"
    path.write_bytes(content)
    with pytest.raises(LightasrError, match=f"mine.tsv{reason}" if reason[0] == ":" else reason):
        read(path)


def test_what_is_not_there_or_no_manifest_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "cuts.jsonl.gz", "empty/readme")
    assert "no such file or directory" in refused(tmp_path / "none")
    assert "name the directory that it lies in" in refused(tmp_path / "cuts.jsonl.gz")
    assert "holds neither wav.scp (Kaldi) nor" in refused(tmp_path / "empty")


# --- recordings that nobody has written down ----------------------------------------------------


def heard(path: Path) -> tuple[list[Entry], Rejected]:
    rejected: Rejected = []
    return read_manifest(path, rejected, transcribed=False), rejected


def test_a_tsv_without_transcripts_needs_no_column_for_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    header = "id speaker audio"
    path = tsv(tmp_path, "a Ann a.wav", "b  b.wav", header=header)
    entries, rejected = heard(path)
    assert entries == [Entry("a", "Ann", "", tmp_path / "a.wav")]
    assert rejected == [("b", f"{path}:3: no speaker")]
    assert "no column 'text'" in refused(path)


def test_some_of_it_may_be_transcribed(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    entries, rejected = heard(tsv(tmp_path, "a Ann a.wav ", "b Bob a.wav HELLO_THERE"))
    assert [entry.text for entry in entries] == ["", "HELLO THERE"]
    assert rejected == []


def test_a_kaldi_directory_without_transcripts_has_no_text(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    data = kaldi(tmp_path, wav_scp=f"a {tmp_path}/a.wav; b {tmp_path}/b.wav", utt2spk="a Ann")
    entries, rejected = heard(data)
    assert entries == [Entry("a", "Ann", "", tmp_path / "a.wav")]
    assert rejected == [("b", f"{data}/wav.scp:2: no speaker in {data}/utt2spk")]
    assert "a Kaldi data directory has wav.scp, text and utt2spk" in refused(data)


def test_supervisions_of_lhotse_may_be_without_transcripts(tmp_path: Path) -> None:
    touch(tmp_path, "r.flac")
    supervisions = [supervision("u", "r", text=None)]
    data = lhotse(tmp_path, [recording("r", tmp_path / "r.flac")], supervisions)
    assert heard(data) == ([Entry("u", "s", "", tmp_path / "r.flac", 0.0, None, 0)], [])
    assert read(data)[1][0][1].endswith("no text")


# --- Kaldi --------------------------------------------------------------------------------------


def kaldi(folder: Path, **files: str) -> Path:
    """A data directory; `wav_scp` is wav.scp, lines are parted by semicolons."""
    data = folder / "data"
    data.mkdir()
    for name, lines in files.items():
        text = "".join(line.strip() + "\n" for line in lines.split(";"))
        (data / name.replace("_", ".")).write_text(text)
    return data


def test_a_kaldi_directory_gives_its_recordings(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav", "a b.wav")
    data = kaldi(
        tmp_path,
        wav_scp=f"b {tmp_path}/b.wav; a {tmp_path}/a b.wav",
        text="a HELLO  THERE; b YES",
        utt2spk="a Ann; b Bob",
    )
    entries, rejected = read(data)
    assert entries == [
        Entry("b", "Bob", "YES", tmp_path / "b.wav"),
        Entry("a", "Ann", "HELLO  THERE", tmp_path / "a b.wav"),
    ]
    assert rejected == []


def test_segments_are_stretches_of_recordings(tmp_path: Path) -> None:
    touch(tmp_path, "r.wav")
    data = kaldi(
        tmp_path,
        wav_scp=f"r {tmp_path}/r.wav",
        segments="u2 r 2.5 4; u1 r 0 1.25 1; u3 r 4.5 -1",
        text="u1 A; u2 B; u3 C",
        utt2spk="u1 s; u2 s; u3 s",
    )
    found = [(e.id, e.start, e.seconds, e.channel) for e in read(data)[0]]
    assert found == [("u2", 2.5, 1.5, None), ("u1", 0, 1.25, 1), ("u3", 4.5, None, None)]


@pytest.mark.parametrize(
    ("command", "channel"),
    [
        ("flac -c -d -s {file} |", None),
        ("/opt/bin/flac -cds {file} |", None),
        ("sph2pipe -f wav -p -c 2 {file} |", 1),
        ("sph2pipe -f wav {file}|", None),
        ("cat {file} |", None),
        ("sox {file} -t wav - |", None),
        ("sox -q '{file}' -c 1 -b 16 -e signed-integer -t wav - |", None),
    ],
)
def test_the_file_behind_a_decoder_is_read_itself(
    tmp_path: Path, command: str, channel: int | None
) -> None:
    touch(tmp_path, "a.flac")
    line = command.format(file=tmp_path / "a.flac")
    (entry,) = read(kaldi(tmp_path, wav_scp=f"a {line}", text="a YES", utt2spk="a s"))[0]
    assert (entry.audio, entry.channel) == (tmp_path / "a.flac", channel)


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf / |",
        "flac -c -d -s a.flac | sox - -t wav - |",
        "flac -c -d --skip=10 a.flac |",
        "sox a.flac -t wav - speed 1.1 |",
        "sox a.flac -r 8000 -t wav - |",
        "sox -v 2 a.flac -t wav - |",
        "sph2pipe -t 1:2 a.sph |",
        "cat a.flac b.flac |",
        "cat $FILE |",
        "cat 'a.flac |",
        "cat |",
        "|",
    ],
)
def test_other_commands_are_refused_and_none_is_run(tmp_path: Path, command: str) -> None:
    data = kaldi(tmp_path, text="a YES", utt2spk="a s")
    (data / "wav.scp").write_text(f"a {command}\n")
    told = refused(data)
    assert told.startswith(f"{data}/wav.scp:1: '{command}': lightasr runs no commands")


@pytest.mark.parametrize("given", ["-", "/x/raw.ark:117"])
def test_streams_and_archives_are_refused(tmp_path: Path, given: str) -> None:
    data = kaldi(tmp_path, wav_scp=f"a {given}", text="a YES", utt2spk="a s")
    assert f"{data}/wav.scp:1: '{given}' is no audio file" in refused(data)


def test_a_relative_path_counts_from_the_directory_else_from_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "data2/a.wav", "a.wav", "b.wav")
    monkeypatch.chdir(tmp_path)
    data = kaldi(tmp_path, wav_scp="a a.wav; b b.wav", text="a A; b B", utt2spk="a s; b s")
    touch(data, "a.wav")
    assert [entry.audio for entry in read(data)[0]] == [data / "a.wav", Path("b.wav")]


def test_what_kaldi_files_lack_of_one_another_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "r.wav")
    wav = f"{tmp_path}/r.wav"
    data = kaldi(
        tmp_path,
        wav_scp=f"good {wav}; mute {wav}; nobody {wav}; gone {tmp_path}/gone.wav; good {wav}",
        text="good A; deaf B; nobody C; gone D; empty",
        utt2spk="good s; mute s; gone s; empty s",
    )
    entries, rejected = read(data)
    assert [entry.id for entry in entries] == ["good"]
    assert rejected == [
        ("mute", f"{data}/wav.scp:2: no transcript in {data}/text"),
        ("nobody", f"{data}/wav.scp:3: no speaker in {data}/utt2spk"),
        ("gone", f"{data}/wav.scp:4: no audio file '{tmp_path}/gone.wav'"),
        ("deaf", f"{data}/text:2: no audio in {data}/wav.scp"),
        ("empty", f"{data}/text:5: no audio in {data}/wav.scp"),
        ("good", f"{data}/wav.scp:5: it is there twice, at {data}/wav.scp:1 too"),
    ]


def test_what_is_wrong_with_segments_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "r.wav")
    data = kaldi(
        tmp_path,
        wav_scp=f"r {tmp_path}/r.wav; idle {tmp_path}/r.wav",
        segments="a r 1 2; b q 1 2; c r 2 1; d r x 1",
        text="a A; b B; c C; d D",
        utt2spk="a s; b s; c s; d s",
    )
    entries, rejected = read(data)
    assert [entry.id for entry in entries] == ["a"]
    assert rejected == [
        ("b", f"{data}/segments:2: no recording 'q' in wav.scp"),
        ("c", f"{data}/segments:3: it ends at 1 s, before it starts at 2 s"),
        ("d", f"{data}/segments:4: start 'x' is no number of seconds"),
        ("idle", f"{data}/wav.scp:2: no segment of it in {data}/segments"),
    ]


def test_what_is_wrong_with_a_kaldi_directory_is_an_error(tmp_path: Path) -> None:
    data = kaldi(tmp_path, wav_scp="r r.wav", segments="a r 1")
    assert f"{data}/text: no such file; a Kaldi data directory has" in refused(data)
    (data / "text").touch()
    (data / "utt2spk").touch()
    assert f"{data}/segments:1: expected `utterance recording start end`" in refused(data)
    assert "name one directory a part" in refused(data, "train")
    (data / "segments").unlink()
    (data / "wav.scp").write_text("")
    assert refused(data) == f"{data}: no utterances in it"


# --- lhotse -------------------------------------------------------------------------------------


def recording(name: str, *files: Path, seconds: float = 10.0, channels: int = 1) -> LhotseRecording:
    """A recording whose files hold `channels` channels each."""
    numbers = iter(range(channels * len(files)))
    sources = [
        AudioSource("file", [next(numbers) for _ in range(channels)], str(file)) for file in files
    ]
    return LhotseRecording(name, sources, 16000, round(seconds * 16000), seconds)


def supervision(
    name: str, of: str, start: float = 0.0, seconds: float = 10.0, **fields: Any
) -> SupervisionSegment:
    fields = {"text": "YES", "speaker": "s", **fields}
    return SupervisionSegment(name, of, start, seconds, **fields)


def lhotse(
    folder: Path,
    recordings: list[LhotseRecording],
    supervisions: list[SupervisionSegment],
    part: str = "train",
) -> Path:
    """Manifests as a recipe of lhotse writes them."""
    data = folder / "manifests"
    data.mkdir(exist_ok=True)
    named = RecordingSet.from_recordings(recordings)
    named.to_file(data / f"mine_recordings_{part}.jsonl.gz")
    spoken = SupervisionSet.from_segments(supervisions)
    spoken.to_file(data / f"mine_supervisions_{part}.jsonl.gz")
    return data


def test_lhotse_manifests_give_their_supervisions(tmp_path: Path) -> None:
    touch(tmp_path, "r.flac", "q.flac")
    data = lhotse(
        tmp_path,
        [recording("r", tmp_path / "r.flac"), recording("q", tmp_path / "q.flac")],
        [
            supervision("u2", "r", 2.5, 1.5, speaker="Ann"),
            supervision("u1", "q", text=" HELLO THERE "),
        ],
    )
    entries, rejected = read(data)
    assert entries == [
        Entry("u2", "Ann", "YES", tmp_path / "r.flac", 2.5, 1.5, 0),
        Entry("u1", "s", "HELLO THERE", tmp_path / "q.flac", 0.0, None, 0),
    ]
    assert rejected == []


@pytest.mark.parametrize(
    ("channel", "file", "index"),
    [(0, "a.wav", 0), (3, "b.wav", 1), ([2], "b.wav", 0), ([2, 3], "b.wav", None)],
)
def test_a_channel_is_found_in_the_file_that_holds_it(
    tmp_path: Path, channel: Any, file: str, index: int | None
) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    spoken = supervision("u", "r", channel=channel)
    files = (tmp_path / "a.wav", tmp_path / "b.wav")
    data = lhotse(tmp_path, [recording("r", *files, channels=2)], [spoken])
    (entry,) = read(data)[0]
    assert (entry.audio, entry.channel) == (tmp_path / file, index)


def test_of_several_sets_the_split_names_one(tmp_path: Path) -> None:
    touch(tmp_path, "r.wav")
    for part in ("train-clean", "dev-clean"):
        named, spoken = recording("r", tmp_path / "r.wav"), supervision(part, "r")
        data = lhotse(tmp_path, [named], [spoken], part)
    assert [entry.id for entry in read(data, "dev-clean")[0]] == ["dev-clean"]
    there = "there are manifests of 'mine_dev-clean', 'mine_train-clean'"
    assert refused(data) == f"{data}: say which as 'split': {there}"
    assert there in refused(data, "clean")


def test_cuts_give_their_supervisions_in_the_time_of_the_recording(tmp_path: Path) -> None:
    touch(tmp_path, "r.wav")
    named = recording("r", tmp_path / "r.wav")
    first = MonoCut("c1", 2.2, 3.0, 0, [supervision("u1", "r", 0.1, 1.5)], recording=named)
    rest = MonoCut("c2", 5.0, 5.0, 0, recording=named)
    mixed = first.pad(duration=10)
    CutSet.from_cuts([first, rest, mixed.with_id("c3")]).to_file(tmp_path / "cuts.jsonl.gz")
    entries, rejected = read(tmp_path)
    assert entries == [Entry("u1", "s", "YES", tmp_path / "r.wav", 2.3, 1.5, 0)]
    assert [(name, told.partition(": ")[2]) for name, told in rejected] == [
        ("c2", "the cut has no supervision, so no transcript"),
        ("c3", "a MixedCut: lightasr reads plain cuts of recordings"),
    ]


def test_what_is_wrong_with_a_supervision_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "r.wav")
    named = [recording("r", tmp_path / "r.wav", channels=3), recording("idle", tmp_path / "r.wav")]
    spoken = [
        supervision("mute", "r", text=None),
        supervision("nobody", "r", speaker=None),
        supervision("lost", "q"),
        supervision("two", "r", channel=[0, 2]),
        supervision("early", "r", start=-1),
    ]
    data = lhotse(tmp_path, named, spoken)
    entries, rejected = read(data)
    assert entries == []
    assert [(name, told.partition(": ")[2]) for name, told in rejected] == [
        ("mute", "no text"),
        ("nobody", "no speaker"),
        ("lost", f"no recording 'q' in {data}/mine_recordings_train.jsonl.gz"),
        ("two", "channel [0, 2] is neither one channel nor all of one file"),
        ("early", "start -1.0 is no number of seconds"),
        ("idle", f"no transcript in {data}/mine_supervisions_train.jsonl.gz"),
    ]


def rewrite(data: Path, kind: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the first line of a manifest."""
    (path,) = data.glob(f"*{kind}*")
    first, *rest = gzip.decompress(path.read_bytes()).splitlines()
    tree = json.loads(first)
    change(tree)
    path.write_bytes(gzip.compress(b"\n".join([json.dumps(tree).encode(), *rest])))
    return path


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("recordings", lambda tree: tree.pop("sources"), "sources: Field required"),
        ("supervisions", lambda tree: tree.update(start="soon"), "start: Input should be a valid"),
        ("supervisions", lambda tree: tree.pop("recording_id"), "recording_id: Field required"),
        (
            "recordings",
            lambda tree: tree["sources"][0].update(type="url"),
            "the audio of 'r' is a url: lightasr reads files",
        ),
        (
            "recordings",
            lambda tree: tree.update(transforms=[{"name": "Speed", "kwargs": {"factor": 1.1}}]),
            "'r' is to be transformed",
        ),
    ],
)
def test_what_is_no_manifest_of_lhotse_is_an_error(
    tmp_path: Path, kind: str, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    touch(tmp_path, "r.wav")
    data = lhotse(tmp_path, [recording("r", tmp_path / "r.wav")], [supervision("u", "r")])
    path = rewrite(data, kind, change)
    told = refused(data)
    assert told.startswith(f"{path}:1: ")
    assert reason in told


def test_damaged_and_lonely_manifests_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "r.wav")
    data = lhotse(tmp_path, [recording("r", tmp_path / "r.wav")], [supervision("u", "r")])
    path = data / "mine_recordings_train.jsonl.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-12])
    assert refused(data).startswith(f"{path}: damaged gzip file")
    path.write_bytes(gzip.compress(b"{}}\n"))
    assert refused(data).startswith(f"{path}:1: no recording of lhotse: Invalid JSON")
    path.write_bytes(whole)
    (data / "mine_recordings_train.jsonl").write_bytes(gzip.decompress(whole))
    assert "lies beside it: keep one of them" in refused(data)
    for found in data.glob("*recordings*"):
        found.unlink()
    assert "no recordings of this name lie beside it" in refused(data)
