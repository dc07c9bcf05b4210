"""KenLM's binary tries: read back as the n-grams they were built from; other binaries refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import kenlm
import numpy as np
import pytest

from lightasr.errors import LightasrError
from lightasr.lm.arpa import read_arpa
from lightasr.lm.kenlm_binary import is_binary, read_binary
from lightasr.lm.programs import find_program
from lightasr.lm.tables import ngram_of
from ngrams import draw_sentences, estimate, write_model


def program() -> str | None:
    try:
        return find_program("build_binary")
    except LightasrError:
        return None


pytestmark = pytest.mark.skipif(
    program() is None, reason="build_binary is not built: run `make setup`"
)


def build(folder: Path, order: int, *options: str) -> tuple[Path, Path]:
    """An ARPA file, and a binary of it."""
    arpa = write_model(folder / "lm.arpa", estimate(draw_sentences(order), order))
    out = folder / "lm.bin"
    command = [str(program()), *options, str(arpa), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return arpa, out


def told(path: Path) -> str:
    with pytest.raises(LightasrError) as error:
        read_binary(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


@pytest.mark.parametrize("order", range(2, 7))
def test_a_trie_holds_the_ngrams_it_was_built_from(tmp_path: Path, order: int) -> None:
    arpa, binary = build(tmp_path, order, "trie")
    expected, found = read_arpa(arpa), read_binary(binary)
    assert sorted(found.words) == sorted(expected.words)
    for ours, theirs in zip(found.orders, expected.orders, strict=True):
        rows = [
            sorted(
                zip(
                    [[model.words[n] for n in row] for row in part.words.tolist()],
                    part.logp.tolist(),
                    part.backoff.tolist(),
                    strict=True,
                )
            )
            for model, part in ((found, ours), (expected, theirs))
        ]
        assert [row[0] for row in rows[0]] == [row[0] for row in rows[1]]
        numbers = [np.array([row[1:] for row in part]) for part in rows]
        assert np.allclose(*numbers, atol=1e-6)


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("options", [(), ("-q", "8"), ("-q", "4", "-b", "6")], ids=str)
def test_a_trie_scores_as_kenlm_does(tmp_path: Path, order: int, options: tuple[str, ...]) -> None:
    _, binary = build(tmp_path, order, *options, "trie")
    ours, theirs = ngram_of(read_binary(binary), binary), kenlm.Model(str(binary))
    for sentence in draw_sentences(9, 50, 30):
        line = " ".join(sentence)
        assert ours.score(line) == pytest.approx(theirs.score(line), abs=1e-4)


@pytest.mark.parametrize("options", [("probing",), ("-a", "22", "trie")], ids=str)
def test_what_cannot_be_read_back_is_refused_with_what_to_do(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    _, binary = build(tmp_path, 3, *options)
    message = told(binary)
    assert "give the ARPA file that it was made from" in message
    assert "`build_binary trie lm.arpa lm.bin`" in message


def test_a_trie_without_its_words_is_refused(tmp_path: Path) -> None:
    _, binary = build(tmp_path, 3, "-v", "trie")
    assert "holds no words" in told(binary)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("options", [(), ("-q", "8")], ids=["plain", "quantised"])
def test_a_trie_that_is_cut_short(tmp_path: Path, share: float, options: tuple[str, ...]) -> None:
    _, binary = build(tmp_path, 3, *options, "trie")
    whole = binary.read_bytes()
    binary.write_bytes(whole[: int(share * len(whole))])
    told(binary)


def test_a_binary_is_told_from_text(tmp_path: Path) -> None:
    arpa, binary = build(tmp_path, 2, "trie")
    assert is_binary(binary)
    assert not is_binary(arpa)
    assert not is_binary(tmp_path / "none")


def test_an_unfinished_binary_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lm.bin"
    path.write_bytes(b"mmap lm http://kheafield.com/code incomplete\n" + bytes(200))
    assert "build_binary did not finish it" in told(path)
