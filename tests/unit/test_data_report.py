"""`lightasr data report`: numbers of a corpus counted by hand, planted faults, and how it reads."""

from __future__ import annotations

import gzip
import json
import re
import resource
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import assert_loads_nothing, assert_well_formed
from rich.cells import cell_len

from lightasr import cli, schema
from lightasr.data import features
from lightasr.data.report.content import Corpus, DataReport, Overlap, Part
from lightasr.data.report.findings import percent
from lightasr.data.report.numbers import data_report
from lightasr.data.report.page import write_data_page
from lightasr.data.report.text import report_text
from lightasr.errors import LightasrError
from lightasr.jobs import Job
from lightasr.plan import Plan, load_plan
from planning import write_study
from tones import chapter, sentences, write_archive

TRAIN, DEV, TEST, OTHER = "train-clean-100", "dev-clean", "test-clean", "test-other"
Spoken = tuple[str, str, float, str, str | None]
"""id, speaker, seconds, transcript, digest of the audio"""

CORPUS: dict[str, list[Spoken]] = {
    TRAIN: [
        ("t1", "ann", 2.0, "One two three, four!", "a1"),
        ("t2", "ann", 4.0, "TWO TWO", "a2"),
        ("t3", "bob", 3.0, "YES", "a3"),
    ],
    DEV: [("d1", "cleo", 3.0, "FIVE TWO", "b1"), ("d2", "cleo", 1.0, "TWO FIVE ONE SIX", "b2")],
    TEST: [("e1", "dan", 2.0, "TWO ONE", "c1")],
    OTHER: [("f1", "eve", 2.0, "ONE", "f1")],
}
SENTENCE = "THE NEXT TRAIN LEAVES FROM PLATFORM TWO"


def features_of(plan: Plan) -> dict[str, Job]:
    return {job.config["part"]: job for job in plan.of_stage("features")}


def write_part(
    plan: Plan,
    part: str,
    spoken: Iterable[Spoken],
    rejected: Iterable[tuple[str, str]] = (),
    speeds: tuple[float, ...] = (1.0,),
    **recorded: Any,
) -> None:
    """What the stage `features` leaves of a part, but for the features."""
    directory = plan.project / features_of(plan)[part].dir
    directory.mkdir(parents=True, exist_ok=True)
    with gzip.open(directory / "cuts.jsonl.gz", "wt", encoding="utf-8") as manifest:
        for name, speaker, seconds, text, digest in spoken:
            for speed in speeds:
                custom = {"digest": digest} if digest else {}
                if speed != 1:
                    custom |= {"speed": speed}
                cut = {
                    "id": name if speed == 1 else f"{name}-x{speed:g}",
                    "duration": seconds / speed,
                    "supervisions": [{"text": text, "speaker": speaker}],
                    "custom": custom,
                }
                manifest.write(json.dumps(cut) + "\n")
    lines = ["id\treason", *("\t".join(pair) for pair in rejected)]
    (directory / "rejected.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (directory / "run.json").write_text(json.dumps(recorded))


@pytest.fixture
def plan(project: Path) -> Plan:
    return load_plan(project, "smoke", ["encoders"])


def report_on(plan: Plan, corpus: dict[str, list[Spoken]]) -> Corpus:
    for part, spoken in corpus.items():
        write_part(plan, part, spoken, sample_rates={"16000": len(spoken)}, channels={"1": 1})
    (only,) = data_report(plan).corpora
    return only


def with_more(part: str, *more: Spoken) -> dict[str, list[Spoken]]:
    """The corpus, with more utterances in a part."""
    return {**CORPUS, part: [*CORPUS[part], *more]}


def part_of(corpus: Corpus, name: str) -> Part:
    return next(part for part in corpus.parts if part.name == name)


def overlap_of(corpus: Corpus, split: str, of: str = TRAIN) -> Overlap:
    return next(
        overlap for overlap in corpus.overlaps if (overlap.split, overlap.of) == (split, of)
    )


def told(corpus: Corpus, kind: str) -> list[tuple[str, str]]:
    """Level and place of the findings of a kind."""
    return [(f.level, f.where) for f in corpus.findings if f.kind == kind]


# --- numbers ------------------------------------------------------------------------------------


def test_a_part_is_counted(plan: Plan) -> None:
    train = part_of(report_on(plan, CORPUS), TRAIN)
    assert (train.role, train.utterances, train.speakers) == ("train", 3, 2)
    assert train.hours == pytest.approx(9 / 3600)
    lengths = train.seconds
    assert (lengths.min, lengths.median, lengths.max) == (2.0, 3.0, 4.0)
    assert lengths.p95 == pytest.approx(3.9)
    assert (train.words, train.vocabulary, train.texts) == (7, 5, 3)
    rate = train.rate.spread  # 120, 30 and 20 words a minute
    assert (rate.min, rate.median, rate.max) == (20, 30, 120)
    assert train.characters == Counter("ONETWOTHREEFOURTWOTWOYES")
    assert sum(train.lengths.counts) == sum(train.rate.histogram.counts) == 3
    assert (train.sample_rates, train.channels) == ({"16000": 3}, {"1": 1})
    assert (train.rejected, train.oov, train.digests) == (0, None, 3)


def test_transcripts_are_counted_as_they_are_trained_on(plan: Plan) -> None:
    assert "," not in part_of(report_on(plan, CORPUS), TRAIN).characters


def test_words_that_training_lacks_are_a_share_of_what_is_said(plan: Plan) -> None:
    oov = part_of(report_on(plan, CORPUS), DEV).oov
    assert oov is not None
    assert (oov.words, oov.different, oov.share) == (3, 2, 0.5)
    assert oov.examples == {"FIVE": 2, "SIX": 1}


def test_copies_at_other_speeds_are_not_counted(plan: Plan) -> None:
    before = report_on(plan, CORPUS)
    receipt = {"sample_rates": {"16000": 3}, "channels": {"1": 1}}
    write_part(plan, TRAIN, CORPUS[TRAIN], speeds=(0.9, 1.0, 1.1), **receipt)
    assert data_report(plan).corpora == [before]


def test_histograms_of_all_parts_have_the_same_bins(plan: Plan) -> None:
    parts = report_on(plan, CORPUS).parts
    assert len({tuple(part.lengths.edges) for part in parts}) == 1
    assert all(sum(part.lengths.counts) == part.utterances for part in parts)


def test_experiments_that_read_alike_share_a_report(plan: Plan) -> None:
    experiments = ["encoders/lstm", "encoders/gru", "encoders/ligru", "encoders/transformer"]
    assert report_on(plan, CORPUS).experiments == experiments


def test_another_way_to_write_text_is_reported_apart(project: Path) -> None:
    experiments = {"upper": {}, "any": {"tokenizer": {"alphabet": None}}}
    plan = load_plan(project, "smoke", [write_study(project, experiments=experiments).stem])
    for part, spoken in CORPUS.items():
        write_part(plan, part, spoken)
    upper, free = data_report(plan).corpora
    assert (upper.experiments, free.experiments) == (["mine/upper"], ["mine/any"])
    assert free.alphabet == "".join(sorted("OTEWRNHFUYS"))
    assert told(upper, "characters") == []
    assert told(free, "characters") == [("hint", DEV)]  # the I, V and X of FIVE and SIX


# --- planted faults -----------------------------------------------------------------------------


def test_nothing_in_common_is_said_plainly(plan: Plan) -> None:
    corpus = report_on(plan, CORPUS)
    assert not [finding for finding in corpus.findings if finding.level == "problem"]
    text = report_text(data_report(plan))
    assert "No problems." in text
    assert "No duplicates: no speaker is in two splits." in text
    assert "No duplicates: no audio is in two splits." in text
    assert "No duplicates: no transcript of 5 words or more is in two splits." in text
    assert f"No duplicates: no audio is there twice within {TRAIN}, {DEV}," in text


def test_a_speaker_of_training_in_a_held_out_part_is_a_problem(plan: Plan) -> None:
    corpus = report_on(plan, with_more(DEV, ("d9", "bob", 3.0, "SIX", "b9")))
    assert overlap_of(corpus, DEV).speakers.names == ["bob"]
    assert told(corpus, "same-speaker") == [("problem", f"{DEV} and {TRAIN}")]


def test_a_speaker_of_dev_in_a_test_part_is_a_hint(plan: Plan) -> None:
    corpus = report_on(plan, with_more(TEST, ("e9", "cleo", 3.0, "SIX", "c9")))
    assert told(corpus, "same-speaker") == [("hint", f"{TEST} and {DEV}")]


def test_audio_of_training_in_a_held_out_part_is_a_problem(plan: Plan) -> None:
    corpus = report_on(plan, with_more(DEV, ("d9", "cleo", 4.0, "TWO SIX", "a2")))
    audio = overlap_of(corpus, DEV).audio
    assert audio is not None
    assert (audio.utterances, audio.other_text, audio.pairs) == (1, 1, [["d9", "t2"]])
    assert told(corpus, "same-audio") == [("problem", f"{DEV} and {TRAIN}")]
    assert "No duplicates: no audio is in two" not in report_text(data_report(plan))


def test_audio_that_a_part_has_twice_is_a_problem(plan: Plan) -> None:
    again = [("t8", "bob", 4.0, "TWO TWO", "a2"), ("t9", "bob", 4.0, "TWO SIX", "a2")]
    corpus = report_on(plan, with_more(TRAIN, *again))
    audio = corpus.repeated[0].audio
    assert audio is not None
    assert (audio.utterances, audio.other_text) == (2, 1)
    assert audio.pairs == [["t8", "t2"], ["t9", "t2"]]
    assert told(corpus, "repeated-audio") == [("problem", TRAIN)]


def test_the_same_short_text_is_counted_and_no_finding(plan: Plan) -> None:
    corpus = report_on(plan, with_more(DEV, ("d9", "cleo", 1.0, "Yes.", "b9")))
    texts = overlap_of(corpus, DEV).texts
    assert (texts.utterances, texts.long) == (1, 0)
    assert texts.share == pytest.approx(1 / 3)
    assert texts.share_of_words == pytest.approx(1 / 7)
    assert told(corpus, "same-text") == []


def test_the_same_long_text_is_a_hint(plan: Plan) -> None:
    more = [("e9", "dan", 3.0, SENTENCE.lower(), "c9"), ("e8", "dan", 1.0, "YES", "c8")]
    train = [*CORPUS[TRAIN], ("t9", "ann", 3.0, SENTENCE, "a9")]
    corpus = report_on(plan, {**with_more(TEST, *more), TRAIN: train})
    texts = overlap_of(corpus, TEST).texts
    assert (texts.utterances, texts.long) == (2, 1)
    assert [(example.text, example.words) for example in texts.examples] == [
        (SENTENCE, 7),
        ("YES", 1),
    ]
    assert told(corpus, "same-text") == [("hint", f"{TEST} and {TRAIN}")]


def test_digests_that_were_not_recorded_are_not_taken_for_different(plan: Plan) -> None:
    older = {part: [(*spoken[:4], None) for spoken in CORPUS[part]] for part in CORPUS}
    corpus = report_on(plan, older)
    assert {overlap.audio for overlap in corpus.overlaps} == {None}
    assert {repeated.audio for repeated in corpus.repeated} == {None}
    assert told(corpus, "digests") == [("hint", f"{TRAIN}, {DEV}, {TEST}, {OTHER}")]
    text = report_text(data_report(plan))
    assert "no audio" not in text
    assert f"Not known whether audio is there twice: {TRAIN}" in text


def steady(count: int, words_per_minute: float = 150) -> list[Spoken]:
    """Utterances of one pace and many lengths."""
    said = [1 + number % 20 for number in range(count)]
    return [
        (f"s{i:02d}", "ann", 60 * words / words_per_minute, " ".join(["TWO"] * words), f"s{i}")
        for i, words in enumerate(said)
    ]


def test_transcripts_too_long_or_too_short_for_their_audio_are_suspected(plan: Plan) -> None:
    wrong = [
        ("long", "ann", 2.0, " ".join(["SIX"] * 20), "w1"),
        ("short", "ann", 12.0, "SIX SIX", "w2"),
    ]
    corpus = report_on(plan, {**CORPUS, TRAIN: steady(40) + wrong})
    rate = part_of(corpus, TRAIN).rate
    assert (rate.fast, rate.slow) == (1, 1)
    assert [suspect.id for suspect in rate.suspects] == ["short", "long"]
    assert [suspect.words_per_minute for suspect in rate.suspects] == [10, 600]
    assert told(corpus, "speech-rate") == [("hint", TRAIN)]


@pytest.mark.parametrize(("seconds", "text"), [(0.3, "YES SIR"), (2.0, "YES"), (0.9, "A B C D E")])
def test_a_word_or_a_breath_more_or_less_is_no_suspicion(
    plan: Plan, seconds: float, text: str
) -> None:
    """Of short utterances words per minute say little."""
    odd = [("odd", "ann", seconds, text, "w1")]
    rate = part_of(report_on(plan, {**CORPUS, TRAIN: steady(40) + odd}), TRAIN).rate
    assert rate.suspects == []


SPEECH = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.mark.skipif(not SPEECH.exists(), reason="the real speech in ../shared/data is absent")
@pytest.mark.parametrize("name", ["librispeech_train", "librispeech_valid", "an4_train"])
def test_real_transcripts_are_not_suspected_and_swapped_ones_are(plan: Plan, name: str) -> None:
    lines = (SPEECH / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    right = [(row[0], row[1], float(row[3]), row[4], row[0]) for row in rows]
    assert part_of(report_on(plan, {**CORPUS, TRAIN: right}), TRAIN).rate.suspects == []
    order = np.random.default_rng(0).permutation(len(right))
    swapped = [(*one[:3], right[other][3], one[4]) for one, other in zip(right, order, strict=True)]
    assert part_of(report_on(plan, {**CORPUS, TRAIN: swapped}), TRAIN).rate.suspects != []


def test_a_transcript_of_which_nothing_is_left_is_told(plan: Plan) -> None:
    corpus = report_on(plan, with_more(DEV, ("d9", "cleo", 9.0, "?!", "b9")))
    dev = part_of(corpus, DEV)
    assert (dev.empty.names, dev.rate.suspects) == (["d9"], [])
    assert told(corpus, "no-words") == [("hint", DEV)]


def test_few_training_utterances_with_strange_characters_are_a_hint(plan: Plan) -> None:
    corpus = report_on(plan, {**CORPUS, TRAIN: [*steady(200), ("odd", "ann", 3.0, "É 25", "w1")]})
    outside = part_of(corpus, TRAIN).outside
    assert outside is not None
    assert outside.characters == {"É": 1, "2": 1, "5": 1}
    assert outside.utterances.names == ["odd"]
    assert told(corpus, "characters") == [("hint", TRAIN)]


def test_more_than_the_tokenizer_allows_are_a_problem(plan: Plan) -> None:
    corpus = report_on(plan, with_more(TRAIN, ("odd", "ann", 3.0, "ROOM 9", "w1")))
    assert told(corpus, "characters") == [("problem", TRAIN)]


def test_recordings_at_a_lower_rate_are_a_hint(plan: Plan) -> None:
    report_on(plan, CORPUS)
    write_part(plan, OTHER, CORPUS[OTHER], sample_rates={"8000": 1, "44100": 2}, channels={"2": 3})
    (corpus,) = data_report(plan).corpora
    assert told(corpus, "sample-rate") == [("hint", OTHER)]
    text = report_text(data_report(plan))
    assert "nothing above 4000 Hz" in " ".join(text.split())
    assert "8000 Hz (1), 44100 Hz (2)" in text


def test_rejected_utterances_are_grouped_by_reason(plan: Plan) -> None:
    report_on(plan, CORPUS)
    rejected = [
        ("t4", "t4: not audio that can be decoded."),
        ("t5", "no transcript"),
        ("t6", "t6: longer than 120 s: 133.5 s"),
        ("t7", "t7: longer than 120 s: 140 s"),
        ("t8", "no transcript"),
        ("t9", "no transcript"),
    ]
    write_part(plan, TRAIN, CORPUS[TRAIN], rejected)
    (corpus,) = data_report(plan).corpora
    train = part_of(corpus, TRAIN)
    assert train.rejected == 6
    assert [(reason.reason, reason.utterances.names) for reason in train.reasons] == [
        ("no transcript", ["t5", "t8", "t9"]),
        ("longer than … s: … s", ["t6", "t7"]),
        ("not audio that can be decoded", ["t4"]),
    ]
    assert told(corpus, "rejected") == [("hint", TRAIN)]


def test_long_lists_are_counted_whole_and_shown_in_part(plan: Plan) -> None:
    many = [(f"d{i}", "ann", 2.0, "ONE", "a1") for i in range(150)]
    audio = overlap_of(report_on(plan, with_more(DEV, *many)), DEV).audio
    assert audio is not None
    assert (audio.utterances, len(audio.pairs)) == (150, 100)
    assert "d4 = t1 and 145 more" in " ".join(report_text(data_report(plan)).split())


def test_copied_audio_is_found_through_the_stage_itself(plan: Plan, tmp_path: Path) -> None:
    """An utterance of training lies in dev, too, under another name, with another speaker."""
    files = {
        part: chapter(part, speaker, sentences(6, seed=speaker))
        for speaker, part in enumerate((TRAIN, DEV, TEST, OTHER), start=1)
    }
    flacs = {part: [name for name in files[part] if name.endswith(".flac")] for part in files}
    files[DEV][flacs[DEV][2]] = files[TRAIN][flacs[TRAIN][4]]
    for part, job in features_of(plan).items():
        archive = write_archive(tmp_path / part / f"{part}.tar.gz", files[part])
        config = schema.FeaturesSlice.model_validate_json(json.dumps(job.config))
        out, work = plan.project / job.dir, tmp_path / "work" / part
        out.mkdir(parents=True)
        work.mkdir(parents=True)
        receipt = features.run(config, {"archive": archive.parent}, out, work)
        (out / "run.json").write_text(json.dumps(receipt))
    (corpus,) = data_report(plan).corpora
    audio = overlap_of(corpus, DEV).audio
    assert audio is not None
    assert audio.pairs == [["2-1-0002", "1-1-0004"]]
    assert [finding.kind for finding in corpus.findings if finding.level == "problem"] == [
        "same-audio"
    ]
    assert {part.name: part.sample_rates for part in corpus.parts} == {
        part: {"16000": 6} for part in CORPUS
    }


# --- what is not there, or broken ---------------------------------------------------------------


def test_without_any_features_it_says_how_to_make_them(plan: Plan) -> None:
    command = "snakemake --profile profiles/local --config scale=smoke studies=encoders -- features"
    with pytest.raises(LightasrError, match=f"scale smoke: no part has features.*`{command}`"):
        data_report(plan)


def test_parts_that_are_not_there_are_named_and_not_compared(plan: Plan) -> None:
    corpus = report_on(plan, {DEV: CORPUS[DEV], TEST: CORPUS[TEST]})
    assert [missing.part for missing in corpus.missing] == [TRAIN, OTHER]
    assert [(overlap.split, overlap.of) for overlap in corpus.overlaps] == [(TEST, DEV)]
    assert part_of(corpus, DEV).oov is None
    text = " ".join(report_text(data_report(plan)).split())
    assert f"NOT THERE YET, and in none of the numbers: {TRAIN}, {OTHER}" in text
    assert "Nothing is compared with training before all of it is there." in text
    assert "features" in text
    assert "To make it: snakemake --profile profiles/local" in text
    assert "No problems in what is there." in text


@pytest.mark.parametrize(
    "cut",
    [
        {"id": "x", "duration": 1.0, "supervisions": []},
        {"id": "x", "supervisions": [{"text": "A", "speaker": "s"}]},
        {"id": "x", "duration": 0, "supervisions": [{"text": "A", "speaker": "s"}]},
    ],
)
def test_a_manifest_that_is_none_is_named_with_its_line(plan: Plan, cut: dict[str, Any]) -> None:
    report_on(plan, CORPUS)
    path = plan.project / features_of(plan)[DEV].dir / "cuts.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(cut).encode() + b"\n"))
    with pytest.raises(LightasrError, match=rf"{DEV}.*cuts\.jsonl\.gz:1: "):
        data_report(plan)


def test_a_part_without_utterances_is_an_error(plan: Plan) -> None:
    report_on(plan, CORPUS)
    write_part(plan, DEV, [])
    with pytest.raises(LightasrError, match=f"{DEV}.*holds no utterance"):
        data_report(plan)


# --- how it reads -------------------------------------------------------------------------------


@pytest.fixture
def faulty(plan: Plan) -> DataReport:
    """A corpus with something of everything, and long names."""
    long = "a-very-long-name-of-an-utterance-" * 3
    train = [
        *steady(30),
        (f"{long}1", "ann", 3.0, SENTENCE, "x1"),
        ("t8", "bob", 3.0, "<b>NOT BOLD</b> É [X] $9$ 中文字", "x1"),
        ("t9", "ann", 2.0, " ".join(["SIX"] * 40), "x9"),
        ("t10", "ann", 2.0, "?!", "x10"),
    ]
    dev = [("d1", "ann", 3.0, SENTENCE, "x1"), ("d2", "cleo", 3.0, "UNHEARD OF", "b2")]
    rejected = [(f"{long}{i}", f"something went wrong with <i>{long}") for i in range(9)]
    write_part(plan, TRAIN, train, rejected, sample_rates={"8000": 3}, channels={"2": 3})
    write_part(plan, DEV, dev)
    write_part(plan, TEST, CORPUS[TEST])
    return data_report(plan)


def test_the_text_fits_a_terminal_and_begins_with_problems(faulty: DataReport) -> None:
    lines = report_text(faulty).splitlines()
    assert max(map(cell_len, lines)) <= 80
    titles = [line for line in lines if line.isupper() and not line.startswith(" ")]
    assert titles == [
        "PROBLEMS",
        "WORTH A LOOK",
        "SIZE",
        "WORDS",
        "WORDS PER MINUTE",
        "IN COMMON",
        "CHARACTERS",
        "RECORDINGS",
    ]


def test_columns_of_the_text_are_aligned(plan: Plan) -> None:
    report_on(plan, CORPUS)
    lines = report_text(data_report(plan)).splitlines()
    start = lines.index("SIZE")
    header, *rows = lines[start + 1 : start + 6]
    ends = [match.end() for match in re.finditer(r"hours|utterances|speakers|max s", header)]
    assert len(ends) == 4
    for row in rows:
        assert all(row[end - 1].isdigit() and row[end : end + 1] in {"", " "} for end in ends)


def test_the_page_has_every_part_and_loads_nothing(faulty: DataReport, tmp_path: Path) -> None:
    write_data_page(faulty, tmp_path / "new" / "page.html")
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert_well_formed(page)
    assert_loads_nothing(page)
    for part in (TRAIN, DEV, TEST):
        assert page.count(f'<td class="name">{part}</td>') >= 4
        for figure in ("lengths", "words per minute", "characters"):
            assert f'aria-label="sample: {figure} of {part}"' in page
    assert page.count("<svg") == 9
    assert f"Not there yet: {OTHER}." in page
    assert page.count('<li class="problem">') == len(
        [f for f in faulty.corpora[0].findings if f.level == "problem"]
    )
    assert "<b>" not in page
    assert "<i>" not in page


def test_a_page_of_two_corpora_is_well_formed(project: Path, tmp_path: Path) -> None:
    experiments = {"upper": {}, "lower": {"text": {"case": "lower"}}}
    plan = load_plan(project, "smoke", [write_study(project, experiments=experiments).stem])
    for part, spoken in CORPUS.items():
        write_part(plan, part, spoken)
    write_data_page(data_report(plan), tmp_path / "page.html")
    assert_well_formed((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_where_there_is_next_to_nothing_there_is_a_report(project: Path, tmp_path: Path) -> None:
    """Not a word in one corpus, not a part of the other."""
    experiments = {"one": {}, "none": {"features": {"max_seconds": 9.0}}}
    plan = load_plan(project, "smoke", [write_study(project, experiments=experiments).stem])
    job = next(job for job in plan.of_stage("features") if job.config["part"] == DEV)
    assert job.config["max_seconds"] != 9.0
    directory = project / job.dir
    directory.mkdir(parents=True)
    cut = {"id": "x", "duration": 1.0, "supervisions": [{"text": "?", "speaker": "ann"}]}
    (directory / "cuts.jsonl.gz").write_bytes(gzip.compress(json.dumps(cut).encode()))
    (directory / "rejected.tsv").write_text("id\treason\n")
    (directory / "run.json").write_text("{}")
    report = data_report(plan)
    assert [len(corpus.parts) for corpus in report.corpora] == [1, 0]
    assert report_text(report).count("NOT THERE YET") == 2
    write_data_page(report, tmp_path / "page.html")
    assert_well_formed((tmp_path / "page.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (1, "100 %"), (0.0001, "< 0.1 %"), (0.038, "3.8 %")]
)
def test_no_share_of_something_is_shown_as_none(share: float, text: str) -> None:
    assert percent(share) == text


# --- the command --------------------------------------------------------------------------------


def call(plan: Plan, monkeypatch: pytest.MonkeyPatch, *arguments: str, code: int = 0) -> None:
    monkeypatch.chdir(plan.project)
    monkeypatch.setattr("sys.argv", ["lightasr", "data", "report", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code or 0) == code


def test_the_command_prints_the_text_and_writes_the_page(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report_on(plan, CORPUS)
    call(plan, monkeypatch, "--scale", "smoke")
    out = capsys.readouterr().out
    assert out.startswith("data of scale smoke\n")
    assert out.endswith("The page: results/report/data-smoke.html\n")
    assert (plan.project / "results" / "report" / "data-smoke.html").exists()


def test_the_command_refuses_where_nothing_is_done(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(plan, monkeypatch, "--scale", "smoke", code=1)
    assert capsys.readouterr().err.splitlines()[-1].startswith("lightasr: scale smoke: no part")


def keys(tree: Any, path: str = "") -> set[str]:
    """Every key of a tree, dotted; those whose names are data as `*`."""
    if isinstance(tree, list):
        return set().union(*(keys(item, f"{path}[]") for item in tree))
    if not isinstance(tree, dict):
        return {path}
    data = path.rpartition(".")[2] in {"characters", "examples", "sample_rates", "channels"}
    return set().union(
        *(keys(value, f"{path}.{'*' if data else key}".lstrip(".")) for key, value in tree.items())
    )


def test_programs_find_the_same_keys_tomorrow(
    faulty: DataReport,
    plan: Plan,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(plan, monkeypatch, "--scale", "smoke", "--json")
    tree = json.loads(capsys.readouterr().out)
    assert tree == asdict(faulty)
    part, overlap, audio = "corpora[].parts[]", "corpora[].overlaps[]", ("utterances", "other_text")
    spread, histogram = ("min", "p5", "median", "p95", "max"), ("edges[]", "counts[]")
    assert keys(tree) == {
        "scale",
        "make",
        *below("corpora[]", "name", "experiments[]", "alphabet"),
        *below("corpora[].missing[]", "part", "role", "directory"),
        *below("corpora[].findings[]", "level", "kind", "where", "text"),
        *below(part, "name", "role", "directory", "utterances", "hours", "speakers", "words"),
        *below(part, "vocabulary", "texts", "digests", "rejected", "characters.*"),
        *below(part, "sample_rates", "sample_rates.*", "channels", "channels.*", "oov"),
        *below(f"{part}.seconds", *spread),
        *below(f"{part}.lengths", *histogram),
        *below(f"{part}.empty", "count", "names[]"),
        *below(f"{part}.rate", "fast", "slow"),
        *below(f"{part}.rate.spread", *spread),
        *below(f"{part}.rate.histogram", *histogram),
        *below(f"{part}.rate.suspects[]", "id", "seconds", "words_per_minute", "text"),
        *below(f"{part}.oov", "words", "share", "different", "examples.*"),
        *below(f"{part}.outside.characters", "*"),
        *below(f"{part}.outside.utterances", "count", "names[]"),
        *below(f"{part}.reasons[]", "reason", "utterances.count", "utterances.names[]"),
        *below("corpora[].repeated[]", "split"),
        *below("corpora[].repeated[].audio", *audio, "pairs[][]"),
        *below(overlap, "of", "split", "speakers.count", "speakers.names[]"),
        *below(f"{overlap}.audio", *audio, "pairs[][]"),
        *below(f"{overlap}.texts", "utterances", "share", "share_of_words", "long"),
        *below(f"{overlap}.texts.examples[]", "text", "words", "utterances"),
    }


def below(path: str, *names: str) -> list[str]:
    return [f"{path}.{name}" for name in names]


# --- size ---------------------------------------------------------------------------------------

LIBRISPEECH = 281_241


def test_a_part_of_librispeechs_size_takes_seconds_and_little_memory(plan: Plan) -> None:
    report_on(plan, CORPUS)
    random = np.random.default_rng(0)
    letters = list("ETAOINSHRDLU")
    words = ["".join(random.choice(letters, random.integers(2, 9))) for _ in range(20_000)]
    texts = [" ".join(random.choice(words, 34)) for _ in range(2_000)]
    path = plan.project / features_of(plan)[TRAIN].dir / "cuts.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as manifest:
        for i in range(LIBRISPEECH):
            name, text = f"{i % 2338}-1-{i:06d}", f"{words[i % 20_000]} {texts[i % 2_000]}"
            manifest.write(
                f'{{"id": "{name}", "start": 0, "duration": {2 + i % 15}.{i % 97:02d}, '
                f'"channel": 0, "supervisions": [{{"id": "{name}", "recording_id": "{name}", '
                f'"start": 0, "channel": 0, "text": "{text}", "speaker": "{i % 2338}"}}], '
                f'"features": {{"type": "kaldi-fbank", "num_frames": 1249, "num_features": 80, '
                f'"storage_path": "feats.lca", "storage_key": "{i},43000"}}, '
                f'"custom": {{"digest": "{i:016x}"}}, "type": "MonoCut"}}\n'
            )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    train = part_of(data_report(plan).corpora[0], TRAIN)
    assert time.process_time() - started < 20
    assert train.utterances == LIBRISPEECH
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kB
