"""Tokenizers: from transcripts to the symbols a model writes, and back."""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from lightasr.errors import LightasrError
from lightasr.progress import say, track
from lightasr.text.normalize import Normalizer
from lightasr.text.transcripts import training_transcripts
from lightasr.text.vocabulary import (
    PIECE_BOUNDARY,
    alphabet_of,
    name_all,
    sort_out,
    too_many,
    write_outside,
    write_table,
)
from lightasr.threads import usable_cores

if TYPE_CHECKING:
    from lightasr import schema

BLANK = "<blank>"
WORD_BOUNDARY = "|"
OTHER_BOUNDARY = "<space>"  # where `|` is a character of the alphabet
LETTERS = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TOKENS = "tokens.txt"
VOCABULARY = "vocabulary.tsv"
OUTSIDE = "outside.tsv"
SPM_MODEL = "spm.model"
LONGEST_SENTENCE = 1 << 20  # bytes; sentencepiece leaves out longer ones without a word

Tokens = NDArray[np.int16]
NO_TOKENS: Tokens = np.zeros(0, dtype=np.int16)


class Tokenizer(ABC):
    """Writes normalised text as symbols; the blank of CTC is symbol 0."""

    blank = 0
    boundary: int | None
    """Id of the symbol between two words; None where the first symbol of a word marks its start."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        spelling = [s for i, s in enumerate(symbols) if i not in {self.blank, self.boundary}]
        self.characters = frozenset("".join(spelling)) - {PIECE_BOUNDARY} | {" "}
        """What a text may consist of."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text's symbols; LightasrError names a character that has none."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text that symbols spell; blanks spell nothing."""

    def encode_all(self, texts: Sequence[str]) -> list[Tokens]:
        """Ids of many texts in little memory; none where a text's character has no symbol."""
        return [
            NO_TOKENS if self.outside(text) else np.array(self.encode(text), dtype=np.int16)
            for text in texts
        ]

    def outside(self, text: str) -> set[str]:
        """The characters of a text that have no symbol."""
        return set(text).difference(self.characters)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder."""
        text = "".join(f"{symbol}\n" for symbol in self.symbols)
        (folder / TOKENS).write_text(text, encoding="utf-8", newline="\n")

    def _no_symbol(self, text: str) -> LightasrError:
        return LightasrError(
            f"the tokenizer has no symbol for {name_all(sorted(self.outside(text)))} in {text!r}: "
            "write it as words, or leave the utterance out"
        )


class CharTokenizer(Tokenizer):
    """The characters of an alphabet, by default LibriSpeech's, and a symbol between words."""

    boundary = 1

    def __init__(self, alphabet: Sequence[str] = LETTERS) -> None:
        between = OTHER_BOUNDARY if WORD_BOUNDARY in alphabet else WORD_BOUNDARY
        super().__init__([BLANK, between, *alphabet])
        self._ids = {char: i for i, char in enumerate(alphabet, start=2)} | {" ": self.boundary}
        self._codes = str.maketrans({char: chr(i) for char, i in self._ids.items()})
        self._within = re.compile(f"[{re.escape(''.join(self._ids))}]*")

    def encode(self, text: str) -> list[int]:
        try:
            return [self._ids[char] for char in text]
        except KeyError:
            raise self._no_symbol(text) from None

    def encode_all(self, texts: Sequence[str]) -> list[Tokens]:
        return [
            np.frombuffer(text.translate(self._codes).encode("utf-16-le"), dtype="<i2")
            if self._within.fullmatch(text)
            else NO_TOKENS
            for text in texts
        ]

    def decode(self, ids: Iterable[int]) -> str:
        spelt = (" " if i == self.boundary else self.symbols[i] for i in ids if i != self.blank)
        return " ".join("".join(spelt).split())


class SentencePieceTokenizer(Tokenizer):
    """Pieces of words, learnt from the training transcripts."""

    boundary = None

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._spm = sentencepiece.SentencePieceProcessor(model_proto=model)
        super().__init__([self._spm.id_to_piece(i) for i in range(self._spm.get_piece_size())])

    @classmethod
    def train(
        cls, sentences: Iterable[str], kind: Literal["bpe", "unigram"], size: int, alphabet: str
    ) -> SentencePieceTokenizer:
        """Learn `size` symbols, among them the blank and every character of the alphabet."""
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                model_type=kind,
                vocab_size=size,
                # The unknown piece never occurs in a text that `encode` accepts: its place, 0, is
                # free for the blank.
                unk_id=0,
                unk_piece=BLANK,
                bos_id=-1,
                eos_id=-1,
                required_chars=alphabet,
                character_coverage=1.0,
                normalization_rule_name="identity",
                max_sentence_length=LONGEST_SENTENCE,
                num_threads=1,  # the order of sums, hence the pieces, would hang on it
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise LightasrError(
                f"tokenizer.size {size}: sentencepiece could not learn {kind} symbols: {error}"
            ) from error
        return cls(model.getvalue())

    def encode(self, text: str) -> list[int]:
        if self.outside(text):
            raise self._no_symbol(text)
        ids: list[int] = self._spm.encode(text)
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[Tokens]:
        found = self._spm.encode(list(texts), num_threads=usable_cores())
        return [
            NO_TOKENS if self.outside(text) else np.array(ids, dtype=np.int16)
            for text, ids in zip(texts, found, strict=True)
        ]

    def decode(self, ids: Iterable[int]) -> str:
        spelt = "".join(self.symbols[i] for i in ids if i != self.blank)
        return " ".join(spelt.replace(PIECE_BOUNDARY, " ").split())

    def save(self, folder: Path) -> None:
        super().save(folder)
        (folder / SPM_MODEL).write_bytes(self._model)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `save` wrote into a folder."""
    path = folder / TOKENS
    try:
        # Not splitlines(): some characters of an alphabet count as ends of lines for it.
        *symbols, rest = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise LightasrError(
            f"{path}: no such file; it is written by the stage `tokenizer`"
        ) from None
    except UnicodeDecodeError as error:
        raise LightasrError(f"{path}: not UTF-8 text: {error}") from None
    if rest:
        raise LightasrError(f"{path}: cut short: its last line does not end")
    model = folder / SPM_MODEL
    tokenizer = _load_pieces(model) if model.exists() else CharTokenizer(symbols[2:])
    if tokenizer.symbols != symbols or len(set(symbols)) < len(symbols):
        raise LightasrError(
            f"{path}: its {len(symbols)} symbols are not those of "
            + (SPM_MODEL if model.exists() else f"a tokenizer: {BLANK}, the boundary, characters")
        )
    return tokenizer


def _load_pieces(path: Path) -> SentencePieceTokenizer:
    try:
        return SentencePieceTokenizer(path.read_bytes())
    except RuntimeError as error:
        raise LightasrError(f"{path}: not a model of sentencepiece: {error}") from error


def run(
    config: schema.TokenizerSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """The stage `tokenizer`: its files in `out`, tried on every training transcript."""
    normalize = Normalizer(config.text)
    with track("tokenizer: transcripts") as bar:
        transcripts = []
        for name, text in training_transcripts(inputs):
            transcripts.append((name, normalize(text)))
            bar.update()
    alphabet = alphabet_of(config.alphabet, (text for _, text in transcripts))
    if not alphabet:
        raise LightasrError("none of the training transcripts has a word: there is no alphabet")
    texts, outside = sort_out(transcripts, alphabet)
    if len(outside) > config.max_outside * len(transcripts):
        write_outside(work / OUTSIDE, outside)  # `out` is not kept
        raise too_many(outside, len(transcripts), config, work / OUTSIDE)
    write_outside(out / OUTSIDE, outside)
    if outside:
        say(
            f"tokenizer: {len(outside)} of {len(transcripts)} training utterances have characters "
            f"outside the alphabet and are left out; {OUTSIDE} lists them"
        )
    tokenizer = _make(config, alphabet, texts)
    tokenizer.save(out)
    _write_vocabulary(out / VOCABULARY, tokenizer, texts)
    return {"utterances": len(transcripts), "outside": len(outside)}


def _make(config: schema.TokenizerSlice, alphabet: str, texts: Sequence[str]) -> Tokenizer:
    if config.kind == "char":
        return CharTokenizer(alphabet)
    with track(f"tokenizer: learn {config.size} {config.kind} symbols"):
        return SentencePieceTokenizer.train(texts, config.kind, config.size, alphabet)


def _write_vocabulary(path: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Every symbol, and how often it occurs in the training transcripts."""
    symbols = tokenizer.symbols
    ids = np.concatenate([NO_TOKENS, *tokenizer.encode_all(texts)])
    counts = np.bincount(ids, minlength=len(symbols)).tolist()
    rows = zip(range(len(symbols)), symbols, counts, strict=True)
    write_table(path, ["id", "symbol", "count"], rows)
