"""The stage `lm`: from text and training transcripts to a KenLM model."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import kenlm
import pytest

from lightasr.errors import LightasrError
from lightasr.lm import ngram
from lightasr.schema import LanguageModelSlice as Config
from lightasr.schema import Text


def _built() -> bool:
    try:
        return bool(ngram.find_program("lmplz") and ngram.find_program("build_binary"))
    except LightasrError:
        return False


needs_lmplz = pytest.mark.skipif(not _built(), reason="lmplz is not built: run `make setup`")

FEW = ["The dog barks.", "the dog sleeps", "A CAT SLEEPS", "", "a cat's life"]


LM_TEXT = "librispeech-lm-norm.txt.gz"


def many(count: int = 3000) -> list[str]:
    """Sentences with a natural spread of counts: common and rare words."""
    draw = random.Random(3)
    words = ["".join(draw.choices("AEIORSTLN", k=4)) for _ in range(600)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return [" ".join(draw.choices(words, weights, k=draw.randint(1, 12))) for _ in range(count)]


def inputs(folder: Path, text: list[str], transcripts: list[str] | None = None) -> dict[str, Path]:
    (folder / "text").mkdir(parents=True)
    content = "".join(f"{line}\n" for line in text).encode()
    (folder / "text" / LM_TEXT).write_bytes(gzip.compress(content))
    (folder / "cuts").mkdir()
    cuts = [{"id": str(i), "supervisions": [{"text": t}]} for i, t in enumerate(transcripts or [])]
    lines = "".join(json.dumps(cut) + "\n" for cut in cuts)
    (folder / "cuts" / "cuts.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return {"text": folder / "text", "features/train": folder / "cuts"}


def build(folder: Path, config: Config, sources: dict[str, Path]) -> tuple[Path, dict[str, object]]:
    out, work = folder / "out", folder / "work"
    out.mkdir()
    work.mkdir()
    ngram.run(config, sources, out, work)
    assert list(work.iterdir()) == []
    return out, json.loads((out / "lm.json").read_text())


@needs_lmplz
def test_a_few_sentences(tmp_path: Path) -> None:
    config = Config(order=3, prune=(0,), transcripts=True)
    out, summary = build(tmp_path, config, inputs(tmp_path, FEW, ["MY DOG"]))
    words = (out / "words.txt").read_text().splitlines()
    assert words == ["A", "BARKS", "CAT", "CAT'S", "DOG", "LIFE", "MY", "SLEEPS", "THE"]
    lm = kenlm.Model(str(out / "lm.bin"))
    assert lm.order == 3
    assert lm.score("THE DOG BARKS") > lm.score("BARKS THE DOG")
    assert summary["discount_fallback"] is True
    assert summary["sentences"] == 5
    assert summary["running_words"] == 14
    assert summary["bytes"] == (out / "lm.bin").stat().st_size


@needs_lmplz
def test_transcripts_are_added_only_when_asked(tmp_path: Path) -> None:
    config = Config(order=2, prune=(0,), transcripts=False)
    out, _ = build(tmp_path, config, inputs(tmp_path, FEW, ["MY DOG"]))
    assert "MY" not in (out / "words.txt").read_text().split()


@needs_lmplz
def test_pruning_and_discounts(tmp_path: Path) -> None:
    sources = inputs(tmp_path, many())
    _, full = build(tmp_path, Config(order=3, prune=(0,), transcripts=False), sources)
    (tmp_path / "again").mkdir()
    config = Config(order=3, prune=(0, 0, 1, 5), transcripts=False)  # more than orders: cut off
    _, pruned = build(tmp_path / "again", config, sources)
    assert full["discount_fallback"] is False
    counts = [summary["counts"] for summary in (full, pruned)]
    assert isinstance(counts[0], dict)
    assert isinstance(counts[1], dict)
    assert counts[0]["2"] == counts[1]["2"]
    assert counts[0]["3"] > counts[1]["3"] > 0


@needs_lmplz
def test_same_text_same_model(tmp_path: Path) -> None:
    sources = inputs(tmp_path, many())
    models = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        out, _ = build(tmp_path / name, Config(), sources)
        models.append((out / "lm.bin").read_bytes() + (out / "words.txt").read_bytes())
    assert models[0] == models[1]


@needs_lmplz
def test_rare_words_are_left_out_of_a_large_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngram, "VOCABULARY", 100)
    out, summary = build(tmp_path, Config(order=3, transcripts=False), inputs(tmp_path, many()))
    words = (out / "words.txt").read_text().split()
    assert len(words) == 100
    counts = Counter(" ".join(many()).split())
    assert min(counts[word] for word in words) >= counts.most_common(101)[100][1]
    assert summary["words"] == 100
    assert isinstance(summary["words_left_out"], int)
    assert summary["words_left_out"] > 300


@needs_lmplz
def test_the_message_of_a_failing_program_is_shown(tmp_path: Path) -> None:
    config = Config(order=3, prune=(0, 2, 1), transcripts=False)  # thresholds must not fall
    with pytest.raises(
        LightasrError, match=r"lmplz failed with exit status .*(?s:.*)Pruning thresholds"
    ):
        build(tmp_path, config, inputs(tmp_path, many()))


@needs_lmplz
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_a_file_of_ones_own(packed: bool, tmp_path: Path) -> None:
    content = "\ufeffthe dog\r\nthe caf\u00e9".encode()
    own = tmp_path / "sentences"  # what it holds decides, not its name
    own.write_bytes(gzip.compress(content) if packed else content)
    out, summary = build(tmp_path, Config(order=2, transcripts=False), {"text": own})
    assert (out / "words.txt").read_text("utf-8").split() == ["CAF\u00c9", "DOG", "THE"]
    assert summary["sentences"] == 2


@needs_lmplz
def test_transcripts_alone(tmp_path: Path) -> None:
    sources = inputs(tmp_path, [], ["my dog", "my cat"])
    del sources["text"]
    out, _ = build(tmp_path, Config(order=2), sources)
    assert (out / "words.txt").read_text().split() == ["CAT", "DOG", "MY"]


@needs_lmplz
def test_text_and_transcripts_are_written_as_the_config_says(tmp_path: Path) -> None:
    text = Text(case="lower", numbers="spell", apostrophes="drop", punctuation="keep")
    sources = inputs(tmp_path, ["Gate 5, <s> it\u2019s!"], ["Gate 6"])
    out, _ = build(tmp_path, Config(order=2, text=text), sources)
    assert (out / "words.txt").read_text().split() == ["five,", "gate", "its!", "six"]


def fails(folder: Path, config: Config, sources: dict[str, Path]) -> str:
    """The message of a stage that ends before it needs a program."""
    with pytest.raises(LightasrError) as error:
        build(folder, config, sources)
    return str(error.value)


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "find_program", lambda name: f"/nowhere/{name}")


@pytest.mark.usefixtures("no_programs")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"A B\n")[:-6], "{}: not readable: Compressed file ended"),
        (b"A\nB\xff\n", "{}:2: not UTF-8 text (invalid start byte at byte 2 of the line)"),
        ("A".encode("utf-16"), "{}:1: not UTF-8 text"),
        (b"\n ?! \n", "{}: no sentence to build a model from"),
        (b"", "{}: no sentence to build a model from"),
    ],
    ids=["cut short", "not UTF-8", "UTF-16", "no words", "empty"],
)
def test_unusable_text_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_bytes(content)
    told = fails(tmp_path, Config(transcripts=False), {"text": own})
    assert told.startswith(message.format(own))


@pytest.mark.usefixtures("no_programs")
def test_missing_text_is_named(tmp_path: Path) -> None:
    sources = inputs(tmp_path, FEW)
    (sources["text"] / LM_TEXT).unlink()
    told = fails(tmp_path, Config(), sources)
    assert told == f"{sources['text']}: expected one file .txt or .gz of text, found none"
    (tmp_path / "again").mkdir()
    own = tmp_path / "own.txt"
    assert fails(tmp_path / "again", Config(), {"text": own}) == f"{own}: no such file"


@pytest.mark.usefixtures("no_programs")
def test_no_source_and_empty_sources_are_told(tmp_path: Path) -> None:
    sources = inputs(tmp_path, ["?"], ["!"])
    told = fails(tmp_path, Config(), sources)
    assert told.endswith(
        f"{LM_TEXT} and the training transcripts: no sentence to build a model from"
    )
    for number, (config, given, message) in enumerate(
        [
            (Config(transcripts=False), {}, "a language model needs text: name a part"),
            (Config(), {}, "no input 'features/<part>' holds training transcripts"),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        assert fails(tmp_path / str(number), config, given).startswith(message)


def test_missing_programs_say_how_to_build_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(LightasrError, match=r"lmplz .*`make setup` builds it"):
        ngram.find_program("lmplz")
    (tmp_path / "lmplz").touch()
    assert ngram.find_program("lmplz") == str(tmp_path / "lmplz")
