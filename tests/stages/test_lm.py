"""The stage `lm`: from text, transcripts and ready models to an ARPA file and KenLM's binary."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import kenlm
import pytest

from lightasr.errors import LightasrError
from lightasr.lm import ngram, programs
from lightasr.lm.tables import load_ngram
from lightasr.schema import LanguageModelSlice as Config
from lightasr.schema import Text
from lightasr.text.tokenizers import CharTokenizer, SentencePieceTokenizer, Tokenizer
from ngrams import Model, estimate, write_model


def _built() -> bool:
    try:
        return bool(programs.find_program("lmplz") and programs.find_program("build_binary"))
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
        names = ("lm.bin", "words.txt", "lm.arpa.gz")
        models.append([(out / name).read_bytes() for name in names])
    assert models[0] == models[1]


@needs_lmplz
@pytest.mark.parametrize("order", [2, 4, 6])
def test_the_arpa_file_scores_as_kenlm_s_binary_does(tmp_path: Path, order: int) -> None:
    config = Config(order=order, vocabulary=200)
    out, summary = build(tmp_path, config, inputs(tmp_path, many(), FEW))
    theirs, ours = kenlm.Model(str(out / "lm.bin")), load_ngram(out / "lm.arpa.gz")
    assert summary["words_left_out"] != 0
    for line in many(200):
        assert ours.score(line) == pytest.approx(theirs.score(line), abs=1e-4)


@needs_lmplz
def test_the_formats_of_kenlm_s_binary(tmp_path: Path) -> None:
    sources, sizes, scores = inputs(tmp_path, many()), {}, {}
    for name, config in [
        ("trie", Config()),
        ("probing", Config(format="probing")),
        ("quantised", Config(bits=8)),
    ]:
        (tmp_path / name).mkdir()
        out, summary = build(tmp_path / name, config, sources)
        sizes[name], scores[name] = summary["bytes"], kenlm.Model(str(out / "lm.bin")).score
    assert sizes["quantised"] < sizes["trie"] < sizes["probing"]
    line = many(1)[0]
    assert scores["probing"](line) == pytest.approx(scores["trie"](line), abs=1e-5)
    assert scores["quantised"](line) == pytest.approx(scores["trie"](line), rel=0.02)


def test_bits_are_of_a_trie() -> None:
    with pytest.raises(ValueError, match="'bits' are of `format: trie`"):
        Config(format="probing", bits=8)


@needs_lmplz
def test_rare_words_are_left_out_of_a_large_vocabulary(tmp_path: Path) -> None:
    config = Config(order=3, transcripts=False, vocabulary=100)
    out, summary = build(tmp_path, config, inputs(tmp_path, many()))
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
        programs.find_program("lmplz")
    (tmp_path / "lmplz").touch()
    assert programs.find_program("lmplz") == str(tmp_path / "lmplz")


# --- symbols of a tokenizer ----------------------------------------------------------------------


def with_tokenizer(folder: Path, sources: dict[str, Path], tokenizer: Tokenizer) -> dict[str, Path]:
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    return {**sources, "tokenizer": folder / "tokenizer"}


@needs_lmplz
def test_an_ngram_of_letters(tmp_path: Path) -> None:
    sources = with_tokenizer(tmp_path, inputs(tmp_path, FEW, ["MY DOG"]), CharTokenizer())
    out, summary = build(tmp_path, Config(unit="char", order=6, prune=(0,)), sources)
    symbols = (out / "words.txt").read_text().splitlines()
    assert set(symbols) == set("".join([*FEW, "MY DOG"]).upper().replace(" ", "|")) - {"."}
    lm = kenlm.Model(str(out / "lm.bin"))
    assert lm.score("T H E | D O G") > lm.score("T H E | D G O")
    assert (summary["unit"], summary["order"]) == ("char", 6)


@needs_lmplz
def test_an_ngram_of_pieces(tmp_path: Path) -> None:
    tokenizer = SentencePieceTokenizer.train(many(), "bpe", 60, "AEIORSTLN")
    sources = with_tokenizer(tmp_path, inputs(tmp_path, many()), tokenizer)
    out, _ = build(tmp_path, Config(unit="piece", order=3, transcripts=False), sources)
    symbols = set((out / "words.txt").read_text().splitlines())
    assert symbols <= set(tokenizer.symbols)
    assert any(symbol.startswith("\u2581") for symbol in symbols)


@needs_lmplz
def test_sentences_that_the_tokenizer_cannot_write_are_left_out_and_counted(tmp_path: Path) -> None:
    sources = with_tokenizer(tmp_path, inputs(tmp_path, [*FEW, "caf\u00e9 5"]), CharTokenizer())
    config = Config(unit="char", order=3, transcripts=False)
    out, summary = build(tmp_path, config, sources)
    assert (summary["sentences"], summary["sentences_left_out"]) == (4, 1)
    assert "5" not in (out / "words.txt").read_text()


@needs_lmplz
def test_a_text_that_the_tokenizer_cannot_write(tmp_path: Path) -> None:
    sources = with_tokenizer(tmp_path, inputs(tmp_path, ["5", "6 7"]), CharTokenizer())
    told = fails(tmp_path, Config(unit="char", order=3, transcripts=False), sources)
    assert told.endswith("no sentence to build a model from: the tokenizer can write none of 2")


# --- ready models --------------------------------------------------------------------------------


def lab_model(folder: Path, case: Callable[[str], str] = str.upper) -> Model:
    """A model of somebody else's."""
    folder.mkdir(exist_ok=True)
    return estimate([case(line).split() for line in many(300)], 3)


@needs_lmplz
@pytest.mark.parametrize("name", ["3-gram.arpa", "3-gram.arpa.gz"])
@pytest.mark.parametrize("published", [False, True], ids=["own file", "archive"])
def test_a_ready_arpa_file_is_taken_as_it_is(tmp_path: Path, name: str, published: bool) -> None:
    model = lab_model(tmp_path / "given")
    given = write_model(tmp_path / "given" / name, model)
    (tmp_path / "given" / "run.json").write_text("{}")
    out, summary = build(tmp_path, Config(), {"arpa": given.parent if published else given})
    theirs, ours = kenlm.Model(str(out / "lm.bin")), load_ngram(out / "lm.arpa.gz")
    for line in many(50):
        assert ours.score(line) == pytest.approx(load_ngram(given).score(line), abs=1e-5)
        assert ours.score(line) == pytest.approx(theirs.score(line), abs=1e-4)
    assert summary["ready"] is True
    assert (summary["order"], summary["sentences"]) == (3, None)
    words = {words[0] for words in model if len(words) == 1} - {"<s>", "</s>", "<unk>"}
    assert set((out / "words.txt").read_text().split()) == words


@needs_lmplz
def test_a_ready_trie_of_kenlm_s(tmp_path: Path) -> None:
    given = write_model(tmp_path / "lab.arpa", lab_model(tmp_path))
    command = [programs.find_program("build_binary"), "trie", str(given), str(tmp_path / "lab.bin")]
    subprocess.run(command, check=True, capture_output=True)
    out, _ = build(tmp_path, Config(), {"arpa": tmp_path / "lab.bin"})
    ours, theirs = load_ngram(out / "lm.arpa.gz"), kenlm.Model(str(given))
    for line in many(50):
        assert ours.score(line) == pytest.approx(theirs.score(line), abs=1e-4)


@pytest.mark.usefixtures("no_programs")
def test_a_ready_model_of_words_written_otherwise_is_refused(tmp_path: Path) -> None:
    given = write_model(tmp_path / "lab.arpa", lab_model(tmp_path, str.lower))
    told = fails(tmp_path, Config(), {"arpa": given})
    assert told.startswith(f"{given}: ")
    assert "words are not written as `text` asks (" in told


@pytest.mark.usefixtures("no_programs")
def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    told = fails(tmp_path, Config(), {"arpa": tmp_path / "given"})
    assert told == (
        f"{tmp_path / 'given'}: expected one file .arpa or .gz or .bin that is a language "
        "model, found none"
    )


# --- mixing --------------------------------------------------------------------------------------


@needs_lmplz
@pytest.mark.parametrize("ready", [False, True], ids=["text", "ready model"])
def test_text_and_transcripts_are_mixed_by_the_dev_part(tmp_path: Path, ready: bool) -> None:
    sources = inputs(tmp_path, many(), [" ".join(reversed(line.split())) for line in many(500)])
    if ready:
        sources["arpa"] = write_model(tmp_path / "lab.arpa", lab_model(tmp_path))
        del sources["text"]
    dev = inputs(tmp_path / "dev", [], [*many(40), "MY DOG"])
    sources["dev"] = dev["features/train"]
    out, summary = build(tmp_path, Config(order=3, interpolate=True), sources)
    assert isinstance(summary["weight"], float)
    assert 0.5 < summary["weight"] < 1
    theirs, ours = kenlm.Model(str(out / "lm.bin")), load_ngram(out / "lm.arpa.gz")
    for line in many(50):
        assert ours.score(line) == pytest.approx(theirs.score(line), abs=1e-4)


@needs_lmplz
def test_a_dev_part_without_transcripts_is_named(tmp_path: Path) -> None:
    sources = inputs(tmp_path, many(), FEW)
    sources["dev"] = inputs(tmp_path / "dev", [], [])["features/train"]
    told = fails(tmp_path, Config(order=3, interpolate=True), sources)
    assert told == f"{sources['dev']}: no transcript to fit the weight of interpolation on"
