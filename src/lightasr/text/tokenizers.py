"""Tokenizers: from transcripts to the symbols a model writes, and back."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import sentencepiece

from lightasr.errors import LightasrError
from lightasr.text.normalize import outside_alphabet
from lightasr.text.transcripts import training_transcripts

if TYPE_CHECKING:
    from lightasr import schema

BLANK = "<blank>"
WORD_BOUNDARY = "|"
LETTERS = ("'", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
PIECE_BOUNDARY = "\u2581"  # how sentencepiece writes the space before a word
TOKENS = "tokens.txt"
SPM_MODEL = "spm.model"
LONGEST_SENTENCE = 1 << 20  # bytes; sentencepiece leaves out longer ones without a word


class Tokenizer(ABC):
    """Writes normalised text as symbols; the blank of CTC is symbol 0."""

    blank = 0
    boundary: int | None
    """Id of the symbol between two words; None where the first symbol of a word marks its start."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text's symbols; LightasrError names a character that has none."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text that symbols spell; blanks spell nothing."""

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder."""
        text = "".join(f"{symbol}\n" for symbol in self.symbols)
        (folder / TOKENS).write_text(text, encoding="utf-8")


class CharTokenizer(Tokenizer):
    """LibriSpeech's 26 letters and apostrophe, with `|` between words."""

    boundary = 1

    def __init__(self) -> None:
        super().__init__([BLANK, WORD_BOUNDARY, *LETTERS])
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols) if symbol in LETTERS}
        self._ids[" "] = self.boundary

    def encode(self, text: str) -> list[int]:
        try:
            return [self._ids[char] for char in text]
        except KeyError:
            raise _no_symbol(outside_alphabet(text, self._ids), text) from None

    def decode(self, ids: Iterable[int]) -> str:
        spelt = "".join(self.symbols[i] for i in ids if i != self.blank)
        return " ".join(spelt.replace(WORD_BOUNDARY, " ").split())


class SentencePieceTokenizer(Tokenizer):
    """Pieces of words, learnt from the training transcripts."""

    boundary = None

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._spm = sentencepiece.SentencePieceProcessor(model_proto=model)
        super().__init__([self._spm.id_to_piece(i) for i in range(self._spm.get_piece_size())])

    @classmethod
    def train(
        cls, sentences: Iterable[str], kind: Literal["bpe", "unigram"], size: int
    ) -> SentencePieceTokenizer:
        """Learn `size` symbols, the blank among them."""
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
        ids: list[int] = self._spm.encode(text)
        if self.blank in ids:
            alphabet = {char for symbol in self.symbols[1:] for char in symbol} | {" "}
            raise _no_symbol(outside_alphabet(text, alphabet), text)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        spelt = "".join(self.symbols[i] for i in ids if i != self.blank)
        return " ".join(spelt.replace(PIECE_BOUNDARY, " ").split())

    def save(self, folder: Path) -> None:
        super().save(folder)
        (folder / SPM_MODEL).write_bytes(self._model)


def _no_symbol(characters: set[str], text: str) -> LightasrError:
    named = ", ".join(repr(char) for char in sorted(characters))
    return LightasrError(
        f"the tokenizer has no symbol for {named} in {text!r}: write it as words, or leave the "
        "utterance out"
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `save` wrote into a folder."""
    path = folder / TOKENS
    try:
        symbols = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise LightasrError(
            f"{path}: no such file; it is written by the stage `tokenizer`"
        ) from None
    model = folder / SPM_MODEL
    tokenizer = SentencePieceTokenizer(model.read_bytes()) if model.exists() else CharTokenizer()
    if tokenizer.symbols != symbols:
        made_by = SPM_MODEL if model.exists() else "the tokenizer `char`"
        raise LightasrError(
            f"{path}: its {len(symbols)} symbols are not the {len(tokenizer.symbols)} of {made_by}"
        )
    return tokenizer


def run(config: schema.Tokenizer, inputs: dict[str, Path], out: Path, work: Path) -> None:
    """The stage `tokenizer`: its files in `out`, tried on every training transcript."""
    transcripts = list(training_transcripts(inputs))
    tokenizer: Tokenizer
    if config.kind == "char":
        tokenizer = CharTokenizer()
    else:
        texts = (text for _, text in transcripts)
        tokenizer = SentencePieceTokenizer.train(texts, config.kind, config.size)
    for name, text in transcripts:
        try:
            tokenizer.encode(text)
        except LightasrError as error:
            raise LightasrError(f"utterance {name}: {error}") from None
    tokenizer.save(out)
