"""Many utterances through one search, on all cores, in the order in which they came."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from lightasr.decode.hypotheses import Hypothesis, LogProbs, Search, Weights
from lightasr.errors import LightasrError

CHUNKS_PER_WORKER = 8


class Decoder:
    """Use it in a `with`, which ends its workers."""

    def __init__(self, search: Search, workers: int = 1) -> None:
        self.search, self._workers = search, workers
        self._pool = _pool(search, workers) if workers > 1 else None

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
        """End the workers."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def decode(
        self, utterances: Sequence[LogProbs], weights: Weights
    ) -> Iterator[Sequence[Hypothesis]]:
        """The best hypotheses of each utterance `[T, V]`, the best one first."""
        for number, logp_tv in enumerate(utterances, start=1):
            self._check(logp_tv, f"utterance {number} of {len(utterances)}")
        if self._pool is None:
            yield from (self.search.decode(logp_tv, weights) for logp_tv in utterances)
            return
        size = max(1, -(-len(utterances) // (CHUNKS_PER_WORKER * self._workers)))
        chunks = [utterances[at : at + size] for at in range(0, len(utterances), size)]
        try:
            if self.search.threads:
                work = partial(_decode_chunk, self.search, weights)
            else:
                work = partial(_decode_in_process, weights)
            for found in self._pool.map(work, chunks):
                yield from found
        except BrokenProcessPool as error:
            raise LightasrError(
                "a process of the beam search was killed, as happens when memory runs out: "
                f"ask for more memory or for fewer than {self._workers} processes"
            ) from error

    def _check(self, logp_tv: LogProbs, name: str) -> None:
        symbols = logp_tv.shape[1]
        if symbols != self.search.symbols:
            raise ValueError(f"{symbols} scores a frame, but {self.search.symbols} symbols")
        if np.isnan(logp_tv).any():
            raise LightasrError(f"{name}: the model's log-probabilities are not numbers (NaN)")


def _decode_chunk(
    search: Search, weights: Weights, chunk: Sequence[LogProbs]
) -> list[Sequence[Hypothesis]]:
    return [search.decode(logp_tv, weights) for logp_tv in chunk]


_search_of_process: Search | None = None


def _decode_in_process(weights: Weights, chunk: Sequence[LogProbs]) -> list[Sequence[Hypothesis]]:
    assert _search_of_process is not None, "the pool starts its processes by _start_process"
    return _decode_chunk(_search_of_process, weights, chunk)


def _start_process(search: Search) -> None:
    global _search_of_process
    _search_of_process = search


def _pool(search: Search, workers: int) -> Executor:
    """Threads where the search lets go of Python's lock; else forked processes.

    Those share the loaded search, which can be neither pickled nor loaded once per process at no
    cost; they run the search and numpy alone, so torch's threads are not missed in them.
    """
    if search.threads:
        return ThreadPoolExecutor(workers)
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_start_process,
        initargs=(search,),
    )
