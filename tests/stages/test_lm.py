"""The stage `lm`: from gzipped text and training transcripts to a KenLM model."""

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
from lightasr.schema import LanguageModel as Config


def _built() -> bool:
    try:
        return bool(ngram.find_program("lmplz") and ngram.find_program("build_binary"))
    except LightasrError:
        return False


needs_lmplz = pytest.mark.skipif(not _built(), reason="lmplz is not built: run `make setup`")

FEW = ["The dog barks.", "the dog sleeps", "A CAT SLEEPS", "", "a cat's life"]


def many(count: int = 3000) -> list[str]:
    """Sentences with a natural spread of counts: common and rare words."""
    draw = random.Random(3)
    words = ["".join(draw.choices("AEIORSTLN", k=4)) for _ in range(600)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return [" ".join(draw.choices(words, weights, k=draw.randint(1, 12))) for _ in range(count)]


def inputs(folder: Path, text: list[str], transcripts: list[str] | None = None) -> dict[str, Path]:
    (folder / "text").mkdir(parents=True)
    content = "".join(f"{line}\n" for line in text).encode()
    (folder / "text" / ngram.LM_TEXT).write_bytes(gzip.compress(content))
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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-6]), "not readable as gzipped"),
        (lambda path: path.write_bytes(gzip.compress(b"\xff\xfe\n")), "not readable as gzipped"),
        (lambda path: path.write_bytes(gzip.compress(b"\n ?! \n")), "no sentence"),
    ],
    ids=["missing", "cut short", "not UTF-8", "empty"],
)
def test_unusable_text_is_named(
    damage: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngram, "find_program", lambda name: f"/nowhere/{name}")
    sources = inputs(tmp_path, FEW)
    assert callable(damage)
    damage(sources["text"] / ngram.LM_TEXT)
    with pytest.raises(LightasrError, match=f"{ngram.LM_TEXT}: {message}"):
        build(tmp_path, Config(transcripts=False), sources)


def test_missing_programs_say_how_to_build_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(LightasrError, match=r"lmplz .*`make setup` builds it"):
        ngram.find_program("lmplz")
    (tmp_path / "lmplz").touch()
    assert ngram.find_program("lmplz") == str(tmp_path / "lmplz")
