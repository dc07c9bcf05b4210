"""Utterances of packed features, and the plan that groups them into batches by seconds of audio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lhotse import CutSet, MonoCut
from torch import Tensor

from lightasr.errors import LightasrError
from lightasr.text.tokenizers import Tokenizer

# Features of a small corpus stay in memory after the first epoch; a large one is read as it goes.
CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class Utterance:
    """What planning needs to know of an utterance; its features stay on disk."""

    cut: MonoCut
    seconds: float
    text: str
    tokens: list[int]

    @property
    def id(self) -> str:
        return str(self.cut.id)

    @property
    def speaker(self) -> str:
        return str(self.cut.supervisions[0].speaker)

    @property
    def frames(self) -> int:
        return int(self.cut.num_frames)

    @property
    def least_outputs(self) -> int:
        """Output frames CTC needs: one a symbol, and a blank between equal neighbours."""
        repeats = sum(a == b for a, b in zip(self.tokens, self.tokens[1:], strict=False))
        return len(self.tokens) + repeats


@dataclass(frozen=True)
class Batch:
    """Padded features and targets of some utterances."""

    features_btf: Tensor
    lengths_b: Tensor
    targets_bu: Tensor
    target_lengths_b: Tensor
    utterances: list[Utterance]

    def emptied(self) -> Batch:
        """The same shapes without a valid frame, for a process that has no part in a step."""
        nothing = torch.zeros_like(self.lengths_b)
        return Batch(self.features_btf, nothing, self.targets_bu, nothing, [])

    @property
    def seconds(self) -> float:
        return sum(utterance.seconds for utterance in self.utterances)

    def tensors(self) -> dict[str, object]:
        """What a look at a bad batch needs."""
        return {
            "ids": self.ids,
            "features": self.features_btf,
            "lengths": self.lengths_b,
            "targets": self.targets_bu,
            "target_lengths": self.target_lengths_b,
        }

    @property
    def ids(self) -> list[str]:
        return [utterance.id for utterance in self.utterances]


def read_utterances(directories: Sequence[Path], tokenizer: Tokenizer) -> list[Utterance]:
    """All utterances of some features directories, in the order of their ids."""
    found = []
    for directory in directories:
        for cut in CutSet.from_jsonl_lazy(directory / "cuts.jsonl.gz"):
            cut = cut.with_features_path_prefix(directory)
            text = cut.supervisions[0].text
            try:
                tokens = tokenizer.encode(text)
            except LightasrError as error:
                raise LightasrError(f"{directory}: {cut.id}: {error}") from None
            found.append(Utterance(cut, cut.duration, text, tokens))
    return sorted(found, key=lambda utterance: utterance.id)


def plan_batches(
    seconds: Sequence[float], batch_seconds: float, order: Sequence[int] | None = None
) -> list[list[int]]:
    """Indices in `order` (default: by length), cut where a batch would exceed `batch_seconds`.

    Padding counts: a batch costs its longest utterance times its size.
    """
    if order is None:
        order = sorted(range(len(seconds)), key=lambda i: (seconds[i], i))
    batches: list[list[int]] = []
    longest = 0.0
    for i in order:
        longest = max(longest, seconds[i])
        if batches and longest * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(i)
        else:
            batches.append([i])
            longest = seconds[i]
    return batches


def plan_epoch(
    seconds: Sequence[float],
    batch_seconds: float,
    seed: int,
    epoch: int,
    order: Literal["shuffled", "sortagrad"] = "shuffled",
) -> list[list[int]]:
    """One epoch's batches in random order, of utterances of like length but not always the same.

    Each length is blurred a little before sorting, so that batches differ from epoch to epoch. The
    plan depends on seed and epoch alone, whatever was trained before. SortaGrad's first epoch goes
    from the shortest to the longest utterance instead.
    """
    if order == "sortagrad" and epoch == 0:
        return plan_batches(seconds, batch_seconds)
    random = np.random.default_rng([seed, epoch])
    blurred = np.asarray(seconds) * random.uniform(0.9, 1.1, len(seconds))
    batches = plan_batches(seconds, batch_seconds, np.argsort(blurred, kind="stable").tolist())
    random.shuffle(batches)
    return batches


def deal(batch: Sequence[int], seconds: Sequence[float], parts: int) -> list[list[int]]:
    """A batch cut into parts of about equal length and size; a part may be empty."""
    ordered = sorted(batch, key=lambda i: (-seconds[i], i))
    return [ordered[part::parts] for part in range(parts)]


class FeatureStore:
    """Loads features of utterances, keeping those of a small corpus in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}
        self.bytes = 0

    def load(self, utterance: Utterance) -> Tensor:
        features = self.kept.get(utterance.id)
        if features is None:
            try:
                features = torch.from_numpy(utterance.cut.load_features())
            except (OSError, ValueError, RuntimeError) as error:
                path = utterance.cut.features.storage_path
                raise LightasrError(f"{path}: cannot read '{utterance.id}': {error}") from None
            if self.bytes + features.nbytes <= CACHE_BYTES:
                self.kept[utterance.id] = features
                self.bytes += features.nbytes
        return features

    def collate(self, utterances: list[Utterance]) -> Batch:
        features = [self.load(utterance) for utterance in utterances]
        tokens = [torch.tensor(u.tokens, dtype=torch.long) for u in utterances]
        return Batch(
            features_btf=torch.nn.utils.rnn.pad_sequence(features, batch_first=True),
            lengths_b=torch.tensor([len(f) for f in features]),
            targets_bu=torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            target_lengths_b=torch.tensor([len(t) for t in tokens]),
            utterances=utterances,
        )

    def read(self, utterances: list[Utterance], batch: Sequence[int]) -> Batch:
        """The batch of these indices, which may be none."""
        if not batch:
            return self.collate(utterances[:1]).emptied()
        return self.collate([utterances[i] for i in batch])

    def stream(self, utterances: list[Utterance], batches: list[list[int]]) -> Iterator[Batch]:
        """Batches in order; the next one is read while the last one is worked on."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            coming = None
            for batch in batches:
                following = pool.submit(self.read, utterances, batch)
                if coming is not None:
                    yield coming.result()
                coming = following
            if coming is not None:
                yield coming.result()
