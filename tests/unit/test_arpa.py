"""ARPA files: what is read, what is written, and how a damaged one is told of."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from lightasr.errors import LightasrError
from lightasr.lm import arpa as reading
from lightasr.lm.arpa import Arpa, read_arpa
from lightasr.lm.arpa_writer import write_arpa
from ngrams import Model, arpa_text, draw_sentences, estimate, write_model

SMALL = r"""
\data\
ngram 1=4
ngram 2=2

\1-grams:
-1.5	<unk>
-99	<s>	-0.25
-0.5	</s>
-0.3	A	-0.125

\2-grams:
-0.2	<s> A
-1e-1	A </s>

\end\
"""


@pytest.fixture(scope="module")
def model() -> Model:
    return estimate(draw_sentences(1), 4)


def as_dict(arpa: Arpa) -> Model:
    """Probabilities and weights by words."""
    return {
        tuple(arpa.words[n] for n in row): (10.0**logp, 10.0**backoff)
        for ngrams in arpa.orders
        for row, logp, backoff in zip(
            ngrams.words.tolist(), ngrams.logp.tolist(), ngrams.backoff.tolist(), strict=True
        )
    }


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def told(path: Path) -> str:
    with pytest.raises(LightasrError) as error:
        read_arpa(path)
    return str(error.value)


def test_a_small_file(tmp_path: Path) -> None:
    arpa = read_arpa(written(tmp_path / "lm.arpa", SMALL))
    assert arpa.words == ["<unk>", "<s>", "</s>", "A"]
    first, second = arpa.orders
    assert first.logp.tolist() == np.float32([-1.5, -99, -0.5, -0.3]).tolist()
    assert first.backoff.tolist() == [0, -0.25, 0, -0.125]
    assert second.words.tolist() == [[1, 3], [3, 2]]
    assert second.logp.tolist() == np.float32([-0.2, -0.1]).tolist()


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
@pytest.mark.parametrize("block", [64, reading.BLOCK_BYTES])
def test_every_ngram_is_read(
    tmp_path: Path, model: Model, name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", block)
    found = as_dict(read_arpa(write_model(tmp_path / name, model)))
    assert found.keys() == model.keys()
    for words, (p, weight) in model.items():
        assert found[words] == (pytest.approx(p, rel=1e-5), pytest.approx(weight, rel=1e-5))


def test_what_is_written_is_read_back(tmp_path: Path, model: Model) -> None:
    arpa = read_arpa(write_model(tmp_path / "lm.arpa", model))
    write_arpa(tmp_path / "again.arpa", arpa)
    again = read_arpa(tmp_path / "again.arpa")
    assert again.words == arpa.words
    for first, second in zip(arpa.orders, again.orders, strict=True):
        assert np.array_equal(first.words, second.words)
        assert np.allclose(first.logp, second.logp, rtol=1e-6)
        assert np.allclose(first.backoff, second.backoff, rtol=1e-6, atol=1e-7)


def test_spaces_and_the_ends_of_lines_do_not_matter(tmp_path: Path) -> None:
    loose = SMALL.replace("\t", "  ").replace("<s> A", "<s>\tA").replace("\n", "\r\n")
    found = as_dict(read_arpa(written(tmp_path / "lm.arpa", loose)))
    assert found == as_dict(read_arpa(written(tmp_path / "plain.arpa", SMALL)))


def test_a_model_without_an_unknown_word_gets_one(tmp_path: Path) -> None:
    text = SMALL.replace("ngram 1=4", "ngram 1=3").replace("-1.5	<unk>\n", "")
    arpa = read_arpa(written(tmp_path / "lm.arpa", text))
    assert as_dict(arpa)[("<unk>",)] == (pytest.approx(1e-100), 1.0)
    assert as_dict(arpa)[("A", "</s>")][0] == pytest.approx(10**-0.1)


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("\\data\\", "data", ":2: the line is 'data', not `\\data\\`: no model in ARPA format"),
        ("ngram 2=2", "ngram 3=2", ":4: the line is 'ngram 3=2' where `ngram 2=...` is expected"),
        ("\\1-grams:", "\\2-grams:", ":6: the line is '\\\\2-grams:' where `\\1-grams:`"),
        ("-0.5\t</s>", "-0.5", ":9: the line is not `logarithm words [backoff]` with 1 words"),
        ("-0.5\t</s>", "x\t</s>", ":9: the line is not `logarithm words [backoff]` with 1 words"),
        ("-0.5\t</s>", "0.5\t</s>", ":9: the line has a positive logarithm of a probability"),
        ("-0.5\t</s>", "-0.5\tA", ":10: the line has the word 'A' a second time"),
        ("ngram 1=4", "ngram 1=5", ":12: the line is not `logarithm words [backoff]` with 1"),
        ("ngram 1=4", "ngram 1=3", ":10: the line is '-0.3\\tA\\t-0.125' where `\\2-grams:`"),
        ("A </s>", "B </s>", ":14: the line has a word that is not among the 1-grams"),
        ("-0.2\t<s> A", "0.2\t<s> A", ":13: the line has a positive logarithm of a probability"),
        ("-0.2\t<s> A", "-0.2\t<s>", ":13: the line is not `logarithm words [backoff]` with 2"),
        ("-0.2\t<s> A", "-0.2\t<s> A x", ":13: the line is not `logarithm words [backoff]`"),
        ("ngram 2=2", "ngram 2=3", ":16: the line ends the 2-grams: the head of the file promises"),
        ("ngram 2=2", "ngram 2=1", ":14: the line is '-1e-1\\tA </s>' where `\\end\\` is expected"),
        ("\\end\\\n", "", ":16: the line is '' where `\\end\\` is expected"),
    ],
    ids=lambda value: None if "line" in value else ascii(value),
)
def test_a_damaged_file_is_told_by_its_line(
    tmp_path: Path, was: str, now: str, message: str
) -> None:
    assert SMALL.count(was) == 1
    path = written(tmp_path / "lm.arpa", SMALL.replace(was, now))
    assert told(path).startswith(f"{path}{message}")


@pytest.mark.parametrize("lines", range(1, 16))
def test_a_file_that_is_cut_short(tmp_path: Path, lines: int) -> None:
    path = written(tmp_path / "lm.arpa", "".join(SMALL.splitlines(keepends=True)[:lines]))
    assert told(path).startswith(f"{path}:{lines + 1}: the line ")


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = written(tmp_path / "lm.arpa", SMALL.replace("</s>", "\u00e9").encode("latin-1"))
    assert told(path) == f"{path}:9: the line is not UTF-8 text"


def test_a_gzipped_file_that_is_cut_short(tmp_path: Path, model: Model) -> None:
    packed = gzip.compress(arpa_text(model).encode())
    path = written(tmp_path / "lm.arpa.gz", packed[: len(packed) // 2])
    assert told(path).startswith(f"{path}: not readable: Compressed file ended")
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    assert told(written(path, bytes(damaged))).startswith(f"{path}:")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert told(tmp_path / "lm.arpa") == f"{tmp_path / 'lm.arpa'}: no such file"


def test_no_text_is_no_model(tmp_path: Path) -> None:
    path = written(tmp_path / "lm.arpa", "")
    assert told(path).endswith("no model in ARPA format")


def test_numbers_in_every_notation(tmp_path: Path) -> None:
    for number in ("-.5", "-5.", "-5e-1", "-0.5E+00", "-00.50", "-0"):
        text = SMALL.replace("-0.2\t<s> A", f"{number}\t<s> A")
        logp = read_arpa(written(tmp_path / "lm.arpa", text)).orders[1].logp[0]
        assert math.isclose(logp, float(number), rel_tol=1e-6)
