"""What a tokenizer writes it reads back; what it cannot write it names."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightasr.errors import LightasrError
from lightasr.schema import Tokenizer as Config
from lightasr.text.tokenizers import (
    BLANK,
    CharTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
    run,
)

WORDS = st.text(alphabet="'ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=12)
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)


def sentences(count: int = 400) -> list[str]:
    """Sentences whose words recur, with every letter of the alphabet somewhere."""
    draw = random.Random(7)
    words = ["".join(draw.choices("AEIOUBCDFGLMNPRST", k=draw.randint(2, 8))) for _ in range(120)]
    words += ["'", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    return [" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(count)]


def write_cuts(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(parents=True)
    with gzip.open(folder / "cuts.jsonl.gz", "wt", encoding="utf-8") as lines:
        for number, text in enumerate(texts):
            cut = {"id": f"utt-{number}", "supervisions": [{"id": f"s-{number}", "text": text}]}
            lines.write(json.dumps(cut) + "\n")
    return folder


@pytest.fixture(scope="module", params=["char", "bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "char":
        return CharTokenizer()
    return SentencePieceTokenizer.train(sentences(), request.param, 60)


def test_char_symbols_are_the_contract() -> None:
    symbols = CharTokenizer().symbols
    assert symbols[:4] == ["<blank>", "|", "'", "A"]
    assert symbols[-1] == "Z"
    assert len(symbols) == 29


def test_char_encoding() -> None:
    assert CharTokenizer().encode("A B'") == [3, 1, 4, 2]
    assert CharTokenizer().decode([1, 3, 0, 1, 1, 4, 1]) == "A B"


@given(text=TEXTS)
def test_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.blank not in ids
    assert all(0 < i < len(tokenizer.symbols) for i in ids)
    assert tokenizer.decode(ids) == text


def test_every_id_decodes(tokenizer: Tokenizer) -> None:
    assert tokenizer.symbols[tokenizer.blank] == BLANK
    assert tokenizer.decode([tokenizer.blank]) == ""
    for i in range(len(tokenizer.symbols)):
        assert isinstance(tokenizer.decode([i]), str)


@pytest.mark.parametrize("text", ["CAF\u00c9", "GATE 5", "lower", "A|B"])
def test_a_character_without_a_symbol_is_named(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(LightasrError) as error:
        tokenizer.encode(text)
    assert repr(text) in str(error.value)
    assert any(repr(char) in str(error.value) for char in text)


def test_save_and_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert loaded.symbols == tokenizer.symbols
    assert loaded.encode("ANT'S GATE") == tokenizer.encode("ANT'S GATE")
    assert (tmp_path / "tokens.txt").read_text().split("\n")[:-1] == tokenizer.symbols


def test_load_refuses_symbols_of_another_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text("<blank>\n|\nA\n")
    with pytest.raises(LightasrError, match=r"tokens\.txt: its 3 symbols are not the 29"):
        load_tokenizer(tmp_path)
    with pytest.raises(LightasrError, match="no such file"):
        load_tokenizer(tmp_path / "elsewhere")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_is_deterministic(kind: Literal["bpe", "unigram"], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        SentencePieceTokenizer.train(sentences(), kind, 50).save(tmp_path / folder)
    for name in ("tokens.txt", "spm.model"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_too_many_symbols_for_the_text() -> None:
    with pytest.raises(LightasrError, match=r"tokenizer\.size 5000"):
        SentencePieceTokenizer.train(["A B", "B A"], "bpe", 5000)


@pytest.mark.parametrize(("kind", "size"), [("char", 29), ("bpe", 64), ("unigram", 64)])
def test_stage(kind: Literal["char", "bpe", "unigram"], size: int, tmp_path: Path) -> None:
    texts = sentences()
    inputs = {
        "features/a": write_cuts(tmp_path / "a", texts[:200]),
        "features/b": write_cuts(tmp_path / "b", texts[200:]),
    }
    out = tmp_path / "out"
    out.mkdir()
    run(Config(kind=kind, size=64), inputs, out, tmp_path)
    tokenizer = load_tokenizer(out)
    assert len(tokenizer.symbols) == size
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in texts)


def test_stage_names_the_utterance_that_cannot_be_written(tmp_path: Path) -> None:
    inputs = {"features/a": write_cuts(tmp_path / "a", ["FINE", "GATE 5"])}
    with pytest.raises(LightasrError, match=r"utterance utt-1: .*'5' in 'GATE 5'"):
        run(Config(), inputs, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b'{"id": "x", "supervisions": []}\n'), "cuts.jsonl.gz:1: expected a cut"),
        (gzip.compress(b"not json\n"), "cuts.jsonl.gz:1: expected a cut"),
        (gzip.compress(b'{"id": "x", "supervisions": [{"text": "A"}]}\n')[:-12], "not readable"),
        (b"plain", "not readable"),
    ],
    ids=["no supervision", "not json", "cut short", "not gzip"],
)
def test_damaged_cuts_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "cuts.jsonl.gz").write_bytes(content)
    with pytest.raises(LightasrError, match=message):
        run(Config(), {"features/a": tmp_path}, tmp_path, tmp_path)
