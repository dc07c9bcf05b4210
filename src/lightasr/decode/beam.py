"""Beam search for words: CTC scores, a lexicon and a word n-gram.

The score of a hypothesis is `log p(best alignment) + lm_weight * log10 p(words) + word_score *
number of words`: natural logarithms from the model, base 10 from KenLM, as is usual in the field;
blank frames that are not searched do not count.

The search is flashlight's, the one behind `torchaudio.models.decoder.ctc_decoder`; called directly,
because there a new weight means building lexicon and n-gram anew, and tuning tries many.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Self

import jiwer
import numpy as np
import torch
from flashlight.lib.text.decoder import (
    CriterionType,
    LexiconDecoder,
    LexiconDecoderOptions,
    SmearingMode,
    Trie,
)
from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary
from numpy.typing import NDArray
from torch import Tensor

from lightasr.errors import LightasrError
from lightasr.progress import track
from lightasr.text.tokenizers import Tokenizer

LogProbs = NDArray[np.float32]

# The right symbol is practically never below this rank; the time of a search with hundreds of
# pieces is proportional to it.
SYMBOLS_PER_FRAME = 32
# Of neighbouring frames that are blank this surely only one is searched: a trained model's frames
# are mostly such, and nothing else starts in them.
SURELY_BLANK = math.log(0.999)
# A log-probability nothing recovers from, finite because a beam of infinities has no best one.
IMPOSSIBLE = -1.0e4


@dataclass(frozen=True)
class Hypothesis:
    """What may have been said, and the score of the search."""

    text: str
    score: float


@dataclass(frozen=True)
class Weights:
    """What is tuned on the dev part: weight of the n-gram, reward per word."""

    lm_weight: float
    word_score: float


@dataclass(frozen=True)
class Tuning:
    """The best weights and the WER at every point tried (`lm_weight`, `word_score`, `wer`)."""

    best: Weights
    surface: list[dict[str, float]]


class BeamDecoder:
    """Decodes batches, several utterances at a time; use it in a `with`, which ends its processes.

    `left_out` counts the words of the language model that the tokenizer cannot write: they are
    never hypothesised.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm_dir: Path,
        *,
        beam_size: int,
        beam_threshold: float,
        weights: Weights,
        nbest: int = 1,
        processes: int = 1,
    ) -> None:
        self.weights = weights
        self._search = _Search(tokenizer, lm_dir, beam_size, beam_threshold, nbest)
        self._processes = processes
        self._pool = _pool(self._search, processes) if processes > 1 else None

    @property
    def left_out(self) -> int:
        """Words of the language model that cannot be written."""
        return self._search.left_out

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def decode(self, logp_btv: Tensor, lengths_b: Tensor) -> list[list[Hypothesis]]:
        """The best hypotheses of each utterance of a batch, the best one first."""
        lengths = lengths_b.tolist()
        utterances = [logp_tv[:n] for logp_tv, n in zip(logp_btv, lengths, strict=True)]
        return self.decode_each(utterances)

    def decode_each(self, utterances: Sequence[Tensor]) -> list[list[Hypothesis]]:
        """The same for utterances `[T, V]` of their own lengths, without the memory of padding."""
        return self._decode(self._arrays(utterances), self.weights)

    def tune(
        self,
        utterances: Sequence[Tensor],
        references: Sequence[str],
        lm_weights: Sequence[float],
        word_scores: Sequence[float],
    ) -> Tuning:
        """Try every pair of weights on the dev part: log-probabilities `[T, V]` and their texts.

        Of equally good pairs the one that leans least on the language model is taken.
        """
        if len(utterances) != len(references):
            raise ValueError(f"{len(utterances)} utterances, but {len(references)} references")
        arrays = self._arrays(utterances)
        points = [Weights(*pair) for pair in product(lm_weights, word_scores)]
        surface = []
        with track("tune the beam search", total=len(points)) as bar:
            for weights in points:
                found = [best[0].text for best in self._decode(arrays, weights)]
                surface.append({**asdict(weights), "wer": jiwer.wer(list(references), found)})
                bar.update(1, **surface[-1])
        best = min(surface, key=_preference)
        return Tuning(Weights(best["lm_weight"], best["word_score"]), surface)

    def _arrays(self, utterances: Iterable[Tensor]) -> list[LogProbs]:
        arrays = [logp_tv.detach().to("cpu", torch.float32).numpy() for logp_tv in utterances]
        for number, logp_tv in enumerate(arrays, start=1):
            if logp_tv.shape[1] != self._search.symbols:
                raise ValueError(
                    f"{logp_tv.shape[1]} scores a frame, but {self._search.symbols} symbols"
                )
            if np.isnan(logp_tv).any():
                raise LightasrError(
                    f"utterance {number} of {len(arrays)}: the model's log-probabilities are not "
                    "numbers (NaN)"
                )
        return arrays

    def _decode(self, arrays: list[LogProbs], weights: Weights) -> list[list[Hypothesis]]:
        if self._pool is None:
            return [self._search.decode(logp_tv, weights) for logp_tv in arrays]
        chunk = max(1, len(arrays) // (4 * self._processes))
        try:
            job = partial(_decode_in_worker, weights=weights)
            return list(self._pool.map(job, arrays, chunksize=chunk))
        except BrokenProcessPool as error:
            raise LightasrError(
                "a process of the beam search was killed, as happens when memory runs out: "
                f"ask for more memory or for fewer than {self._processes} processes"
            ) from error


def _preference(point: dict[str, float]) -> tuple[float, float, float, float]:
    return point["wer"], point["lm_weight"], abs(point["word_score"]), point["word_score"]


class _Search:
    """Lexicon, n-gram and options: built once, then only read."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        lm_dir: Path,
        beam_size: int,
        beam_threshold: float,
        nbest: int,
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


_worker_search: _Search | None = None


def _pool(search: _Search, processes: int) -> ProcessPoolExecutor:
    """Processes that share the loaded search; threads would not help, flashlight holds the GIL.

    Forked, as the lexicon and the n-gram can be neither pickled nor loaded once per process at no
    cost; the processes run flashlight and numpy alone, so torch's threads are not missed in them.
    """
    return ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_start_worker,
        initargs=(search,),
    )


def _start_worker(search: _Search) -> None:
    global _worker_search
    _worker_search = search


def _decode_in_worker(logp_tv: LogProbs, weights: Weights) -> list[Hypothesis]:
    assert _worker_search is not None, "the pool starts its processes by _start_worker"
    return _worker_search.decode(logp_tv, weights)
