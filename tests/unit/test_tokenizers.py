"""What a tokenizer writes it reads back; what it cannot write it names."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightasr.errors import LightasrError
from lightasr.schema import Text
from lightasr.schema import TokenizerSlice as Config
from lightasr.text.tokenizers import (
    BLANK,
    LETTERS,
    CharTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
    run,
)

Kind = Literal["char", "bpe", "unigram"]
# Signs that mean something in files of symbols, letters of other scripts, marks, ends of lines.
ODD = '|#<>"\\,;=_5\u00e9\u0416\u05d0\u3042\u4e2d\u0e01\u0e34\u0301\U0001f600'


def texts_in(alphabet: str) -> st.SearchStrategy[str]:
    words = st.text(st.sampled_from(alphabet), min_size=1, max_size=12)
    return st.lists(words, max_size=8).map(" ".join)


def sentences(count: int = 400, letters: str = "AEIOUBCDFGLMNPRST") -> list[str]:
    """Sentences whose words recur."""
    draw = random.Random(7)
    words = ["".join(draw.choices(letters, k=draw.randint(2, 8))) for _ in range(120)]
    return [" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(count)]


def write_cuts(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(parents=True)
    with gzip.open(folder / "cuts.jsonl.gz", "wt", encoding="utf-8") as lines:
        for number, text in enumerate(texts):
            cut = {"id": f"utt-{number}", "supervisions": [{"id": f"s-{number}", "text": text}]}
            lines.write(json.dumps(cut) + "\n")
    return folder


def make(kind: Kind, alphabet: str = LETTERS) -> Tokenizer:
    if kind == "char":
        return CharTokenizer(alphabet)
    return SentencePieceTokenizer.train(sentences(), kind, 80, alphabet)


def build(folder: Path, texts: list[str], config: Config) -> Path:
    """Run the stage on transcripts of two parts."""
    half = len(texts) // 2
    inputs = {
        "features/a": write_cuts(folder / "a", texts[:half]),
        "features/b": write_cuts(folder / "b", texts[half:]),
    }
    out = folder / "out"
    out.mkdir()
    run(config, inputs, out, folder)
    return out


def rows(path: Path) -> list[list[str]]:
    """A table without its header."""
    return [line.split("\t") for line in path.read_text("utf-8").split("\n")[1:-1]]


@pytest.fixture(scope="module", params=["char", "bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make(request.param)


@pytest.fixture(scope="module", params=["char", "bpe", "unigram"])
def odd_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make(request.param, ODD)


def test_char_symbols_are_blank_boundary_and_alphabet() -> None:
    symbols = CharTokenizer().symbols
    assert symbols == ["<blank>", "|", "'", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    assert CharTokenizer("\u0416a").symbols == ["<blank>", "|", "\u0416", "a"]
    assert CharTokenizer("a|").symbols == ["<blank>", "<space>", "a", "|"]


def test_char_encoding() -> None:
    assert CharTokenizer().encode("A B'") == [3, 1, 4, 2]
    assert CharTokenizer().decode([1, 3, 0, 1, 1, 4, 1]) == "A B"
    assert CharTokenizer("a|").decode([2, 3, 1, 3]) == "a| |"


@given(text=texts_in(LETTERS))
def test_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.blank not in ids
    assert all(0 < i < len(tokenizer.symbols) for i in ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.outside(text) == set()


@given(text=texts_in(ODD))
def test_round_trip_of_any_alphabet(odd_tokenizer: Tokenizer, text: str) -> None:
    assert odd_tokenizer.decode(odd_tokenizer.encode(text)) == text


def test_every_id_decodes(tokenizer: Tokenizer) -> None:
    assert tokenizer.symbols[tokenizer.blank] == BLANK
    assert tokenizer.decode([tokenizer.blank]) == ""
    for i in range(len(tokenizer.symbols)):
        assert isinstance(tokenizer.decode([i]), str)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("CAF\u00c9", "\u00c9 (LATIN CAPITAL LETTER E WITH ACUTE)"),
        ("GATE 5", "5 (DIGIT FIVE)"),
        ("\u0410RE", "\u0410 (CYRILLIC CAPITAL LETTER A)"),
        ("A|B", "| (VERTICAL LINE)"),
        ("A\u2581B", "\u2581 (LOWER ONE EIGHTH BLOCK)"),
        ("E\u0301", "U+0301 (COMBINING ACUTE ACCENT)"),
        ("A\x00", "U+0000 (U+0000)"),
    ],
)
def test_a_character_without_a_symbol_is_named(tokenizer: Tokenizer, text: str, named: str) -> None:
    with pytest.raises(LightasrError) as error:
        tokenizer.encode(text)
    assert f"no symbol for {named} in {text!r}" in str(error.value)
    assert tokenizer.outside(text) == {char for char in text if char not in f"{LETTERS} "}


def test_save_and_load(tokenizer: Tokenizer, odd_tokenizer: Tokenizer, tmp_path: Path) -> None:
    for number, saved in enumerate((tokenizer, odd_tokenizer)):
        folder = tmp_path / str(number)
        folder.mkdir()
        saved.save(folder)
        loaded = load_tokenizer(folder)
        assert type(loaded) is type(saved)
        assert loaded.symbols == saved.symbols
        text = " ".join(sorted(saved.characters - {" "}))
        assert loaded.encode(text) == saved.encode(text)


def test_symbols_stand_one_a_line_in_the_order_of_their_ids(tmp_path: Path) -> None:
    CharTokenizer("#|\u0416").save(tmp_path)
    assert (tmp_path / "tokens.txt").read_bytes() == "<blank>\n<space>\n#\n|\n\u0416\n".encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<blank>\n|\nA\nB", "cut short"),
        ("<blank>\n|\nA\nA\n", "its 4 symbols are not those of a tokenizer"),
        ("|\nA\nB\n", "its 3 symbols are not those of a tokenizer"),
        ("<blank>\n|\n|\n", "its 3 symbols are not those of a tokenizer"),
        ("", "its 0 symbols are not those of a tokenizer"),
    ],
)
def test_load_refuses_a_damaged_file(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text(content)
    with pytest.raises(LightasrError, match=rf"tokens\.txt: {message}"):
        load_tokenizer(tmp_path)


def test_load_refuses_files_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match=r"tokens\.txt: no such file"):
        load_tokenizer(tmp_path)
    make("bpe").save(tmp_path)
    CharTokenizer().save(tmp_path)
    with pytest.raises(LightasrError, match=r"tokens\.txt: its 29 symbols are not .* spm\.model"):
        load_tokenizer(tmp_path)
    (tmp_path / "spm.model").write_bytes(b"no model")
    with pytest.raises(LightasrError, match=r"spm\.model: not a model of sentencepiece"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_is_deterministic(kind: Literal["bpe", "unigram"], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        make(kind).save(tmp_path / folder)
    for name in ("tokens.txt", "spm.model"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_too_many_symbols_for_the_text() -> None:
    with pytest.raises(LightasrError, match=r"tokenizer\.size 5000"):
        SentencePieceTokenizer.train(["A B", "B A"], "bpe", 5000, "AB")


@pytest.mark.parametrize(("kind", "size"), [("char", 29), ("bpe", 64), ("unigram", 64)])
def test_stage(kind: Kind, size: int, tmp_path: Path) -> None:
    texts = sentences()
    out = build(tmp_path, [text.lower() for text in texts], Config(kind=kind, size=64))
    tokenizer = load_tokenizer(out)
    assert len(tokenizer.symbols) == size
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in texts)
    assert tokenizer.outside("JQXZ'") == set(), "the whole alphabet, whatever was said"
    counts = Counter(i for text in texts for i in tokenizer.encode(text))
    assert rows(out / "vocabulary.tsv") == [
        [str(i), symbol, str(counts[i])] for i, symbol in enumerate(tokenizer.symbols)
    ]
    assert rows(out / "outside.tsv") == []


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_utterances_outside_the_alphabet_are_listed_and_left_out(
    kind: Kind, tmp_path: Path
) -> None:
    texts = [*sentences(), "gate 5\u200d caf\u00e9", "B|B"]
    config = Config(kind=kind, size=64, text=Text(punctuation="keep"))
    out = build(tmp_path, texts, config)
    tokenizer = load_tokenizer(out)
    assert tokenizer.outside("5\u00c9|") == {"5", "\u00c9", "|"}
    assert rows(out / "outside.tsv") == [
        [
            "utt-199",
            "5 (DIGIT FIVE), \u00c9 (LATIN CAPITAL LETTER E WITH ACUTE)",
            "GATE 5 CAF\u00c9",
        ],
        ["utt-200", "| (VERTICAL LINE)", "B|B"],
    ]
    counts = {symbol: int(count) for _, symbol, count in rows(out / "vocabulary.tsv")}
    whole = [tokenizer.encode(text) for text in texts[:-2]]
    assert sum(counts.values()) == sum(map(len, whole))


def test_too_many_outside_are_told_with_what_helps(tmp_path: Path) -> None:
    texts = ["FINE", "GATE 5", "GATE 55", "CAF\u00c9", "\u0416"]
    with pytest.raises(LightasrError) as error:
        build(tmp_path, texts, Config(max_outside=0.75))
    assert str(error.value) == (
        "4 of 5 training utterances (80.0%) have characters outside the alphabet; "
        "tokenizer.max_outside allows 75.0%\n"
        "characters, and how many utterances have them: 5 (DIGIT FIVE) in 2, "
        "\u00c9 (LATIN CAPITAL LETTER E WITH ACUTE) in 1, "
        "\u0416 (CYRILLIC CAPITAL LETTER ZHE) in 1\n"
        f"utterances: utt-1, utt-0, utt-1, utt-2; all of them: {tmp_path / 'outside.tsv'}\n"
        "what helps: `text.numbers: spell` reads digits out; `text.accents: drop` takes accents "
        "off; add what belongs there to `tokenizer.alphabet`, or make it null: all of it"
    )
    assert len(rows(tmp_path / "outside.tsv")) == 4


def test_an_alphabet_in_another_case_than_the_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match="`text` writes A as a, B as b: let `tokenizer"):
        build(tmp_path, ["ABBA", "BAB"], Config(text=Text(case="lower")))


def test_what_the_remedies_promise(tmp_path: Path) -> None:
    for number, config in enumerate(
        [Config(text=Text(numbers="spell", accents="drop")), Config(alphabet=None)]
    ):
        out = build(tmp_path / str(number), ["GATE 5", "CAF\u00c9"], config)
        assert rows(out / "outside.tsv") == []


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_the_alphabet_of_the_transcripts(kind: Kind, tmp_path: Path) -> None:
    texts = sentences(letters="\u0436\u0448\u0449#|")
    text = Text(case="lower", punctuation="keep")
    out = build(tmp_path, texts, Config(kind=kind, alphabet=None, size=40, text=text))
    tokenizer = load_tokenizer(out)
    assert tokenizer.characters == set(" \u0436\u0448\u0449#|")
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in texts)


def test_an_alphabet_as_people_write_it(tmp_path: Path) -> None:
    out = build(
        tmp_path, ["caf\u00e9"], Config(alphabet="abc e\u0301 fabc", text=Text(case="keep"))
    )
    assert load_tokenizer(out).symbols == ["<blank>", "|", *"abc\u00e9f"]


@pytest.mark.parametrize("char", ["\n", "\u2028", "\x00", "\u2581"])
def test_what_no_symbol_can_be_is_named(char: str, tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match=r"tokenizer\.alphabet: .*U?\+?.* cannot be a symbol"):
        build(tmp_path, ["A"], Config(alphabet=f"A{char}"))


def test_transcripts_without_a_word(tmp_path: Path) -> None:
    with pytest.raises(LightasrError, match="none of the training transcripts has a word"):
        build(tmp_path, ["?!", ""], Config(alphabet=None))


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
