"""flashlight's beam search, as an independent check of ours; `pip install flashlight-text kenlm`.

The score of a hypothesis is `log p(best alignment) + lm_weight * log10 p(words) + word_score *
number of words`. The search is the one behind `torchaudio.models.decoder.ctc_decoder`; called
directly, because there a new weight means building lexicon and n-gram anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np
from flashlight.lib.text.decoder import (
    CriterionType,
    LexiconDecoder,
    LexiconDecoderOptions,
    SmearingMode,
    Trie,
)
from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary

from lightasr.decode.hypotheses import Hypothesis, LogProbs, Weights
from lightasr.errors import LightasrError
from lightasr.text.tokenizers import Tokenizer

# The right symbol is practically never below this rank; the time of a search with hundreds of
# pieces is proportional to it.
SYMBOLS_PER_FRAME = 32
# Of neighbouring frames that are blank this surely only one is searched: a trained model's frames
# are mostly such, and nothing else starts in them.
SURELY_BLANK = math.log(0.999)
# A log-probability nothing recovers from, finite because a beam of infinities has no best one.
IMPOSSIBLE = -1.0e4


class FlashlightSearch:
    """Lexicon, n-gram and options: built once, then only read.

    `left_out` counts the words of the language model that the tokenizer cannot write.
    """

    # It holds Python's lock all the while.
    threads = False

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm_dir: Path,
        beam_size: int,
        beam_threshold: float = 25.0,
        nbest: int = 1,
    ) -> None:
        self.symbols = len(tokenizer.symbols)
        self._blank = tokenizer.blank
        self._boundary = tokenizer.boundary
        # Pieces: then follow, as columns, a held copy of each one (see `_held`), and the silence
        # flashlight asks for, which no frame ever contains.
        self._silence = 2 * self.symbols if self._boundary is None else self._boundary
        self._beam_size = beam_size
        self._beam_threshold = beam_threshold
        self._nbest = nbest
        self._words, spellings = _lexicon(tokenizer, lm_dir)
        self.left_out = len(self._words) - len(spellings)
        self._lm = _load_lm(lm_dir, self._words)
        self._trie = self._build_trie(spellings)

    def _build_trie(self, spellings: dict[int, list[int]]) -> Trie:
        trie = Trie(max(self.symbols, self._silence + 1), self._silence)
        # Inside a word the search counts with the best unigram among the words still possible.
        no_context = self._lm.start(True)
        for word, ids in spellings.items():
            _, score = self._lm.score(no_context, word)
            if self._boundary is not None:
                trie.insert([*ids, self._boundary], word, score)
                continue
            trie.insert(ids, word, score)
            trie.insert([*ids, self.symbols + ids[-1]], word, score)
        trie.smear(SmearingMode.MAX)
        return trie

    @property
    def beam(self) -> int:
        return self._beam_size

    def of(self, *, beam: int | None = None, nbest: int | None = None) -> FlashlightSearch:
        """The same search with another beam, or for more or fewer hypotheses."""
        other = copy(self)
        other._beam_size, other._nbest = beam or self.beam, nbest or self._nbest
        return other

    def decode(self, logp_tv: LogProbs, weights: Weights) -> list[Hypothesis]:
        """The best hypotheses of one utterance."""
        frames_tv = np.ascontiguousarray(self._frames(logp_tv))  # flashlight reads raw memory
        frames, symbols = frames_tv.shape
        options = LexiconDecoderOptions(
            beam_size=self._beam_size,
            beam_size_token=min(symbols, SYMBOLS_PER_FRAME),
            beam_threshold=self._beam_threshold,
            lm_weight=weights.lm_weight,
            word_score=weights.word_score,
            unk_score=float("-inf"),
            sil_score=0.0,
            log_add=False,
            criterion_type=CriterionType.CTC,
        )
        unknown = len(self._words)
        decoder = LexiconDecoder(
            options, self._trie, self._lm, self._silence, self._blank, unknown, [], False
        )
        results = decoder.decode(frames_tv.ctypes.data, frames, symbols)
        return [
            Hypothesis(" ".join(self._words[i] for i in result.words if i >= 0), result.score)
            for result in results[: self._nbest]
        ]

    def _frames(self, logp_tv: LogProbs) -> LogProbs:
        """The frames worth searching, with what flashlight needs beside them."""
        sure_t = logp_tv[:, self._blank] > SURELY_BLANK
        repeats_t = sure_t & np.roll(sure_t, 1)
        repeats_t[:1] = False
        logp_tv = logp_tv[~repeats_t]
        frames, symbols = logp_tv.shape
        if self._boundary is None:
            never_t1 = np.full((frames, 1), IMPOSSIBLE, dtype=np.float32)
            return np.hstack([logp_tv, self._held(logp_tv), never_t1])
        # A word ends with the boundary in the lexicon, but none follows the last word of a
        # transcript: without a frame that closes it the last word would be lost.
        close_1v = np.full((1, symbols), IMPOSSIBLE, dtype=np.float32)
        close_1v[0, self._boundary] = 0.0
        return np.vstack([logp_tv, close_1v])

    def _held(self, logp_tv: LogProbs) -> LogProbs:
        """What it costs that a word's last piece lasts until this frame.

        flashlight leaves a word at the first frame of its last piece, and cannot stay there. So
        every word has a second spelling that ends with a held copy of the piece. The copy must not
        bridge a blank (`NO` would swallow the second word of `NO NO`), nor stop halfway (a long
        `NO` would be two): it needs the piece likelier than blank one frame earlier, and not the
        best symbol one frame later.
        """
        goes_on_tv = np.zeros(logp_tv.shape, dtype=bool)
        goes_on_tv[1:] = logp_tv[:-1] >= logp_tv[:-1, self._blank, None]
        goes_on_tv[:-1] &= logp_tv[1:] < logp_tv[1:].max(axis=1, keepdims=True)
        return np.where(goes_on_tv, logp_tv, np.float32(IMPOSSIBLE))


def _lexicon(tokenizer: Tokenizer, lm_dir: Path) -> tuple[list[str], dict[int, list[int]]]:
    """The words of a language model, and the spelling of each one that can be written."""
    path = lm_dir / "words.txt"
    try:
        words = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise LightasrError(f"{path}: no such file; it is written by the stage `lm`") from None
    spellings = {}
    for index, word in enumerate(words):
        try:
            spellings[index] = tokenizer.encode(word)
        except LightasrError:
            continue  # counted by the caller
    if not spellings:
        raise LightasrError(f"{path}: the tokenizer can write none of its {len(words)} words")
    return words, spellings


def _load_lm(lm_dir: Path, words: Sequence[str]) -> KenLM:
    path = lm_dir / "lm.bin"
    if not path.is_file():
        raise LightasrError(f"{path}: no such file; it is written by the stage `lm`")
    dictionary = Dictionary()
    for word in (*words, "<unk>"):
        dictionary.add_entry(word)
    try:
        return KenLM(str(path), dictionary)
    except RuntimeError as error:
        raise LightasrError(f"{path}: not a language model KenLM can read: {error}") from error
