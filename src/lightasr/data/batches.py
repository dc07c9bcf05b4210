"""Utterances of packed features, and the plan that groups them into batches by seconds of audio."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lhotse.features.io import LilcomChunkyReader
from torch import Tensor

from lightasr import schema
from lightasr.data.cuts import FEATURES, SPEAKERS, named, read_cuts
from lightasr.data.moments import Moments, read_speakers
from lightasr.errors import LightasrError
from lightasr.text.normalize import Normalizer
from lightasr.text.tokenizers import NO_TOKENS, Tokenizer, Tokens

# Features of a small corpus stay in memory after the first epoch; a large one is read as it goes.
CACHE_BYTES = 1 << 30
# How far an utterance may stand from its place by length, so that no two epochs' batches are the
# same. The wider, the more padding: at this width it is less than a twentieth.
BLUR = 0.05
READ_AT_ONCE = 10_000
TOLD = 5


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """What planning needs to know of an utterance; its features stay on disk."""

    id: str
    speaker: str
    seconds: float
    frames: int
    text: str
    """As `text` of the configuration writes it; empty where nothing is left of it."""
    tokens: Tokens
    """Empty where no tokenizer was asked, or where it has no symbol for a character."""
    directory: Path
    storage_key: str
    speed: float

    @property
    def recording(self) -> str:
        """The id that it has at its true speed."""
        return self.id if self.speed == 1 else self.id.removesuffix(f"-x{self.speed:g}")

    @property
    def least_outputs(self) -> int:
        """Output frames CTC needs: one a symbol, and a blank between equal neighbours."""
        tokens = self.tokens
        return len(tokens) + int(np.count_nonzero(tokens[1:] == tokens[:-1]))

    def unfit(self, outputs: int) -> str | None:
        """Why CTC has no loss for its transcript over so many output frames; None if it has."""
        if not self.text:
            return "nothing left of their transcript"
        if not len(self.tokens):
            return "characters outside the alphabet"
        return "too short for their transcript" if outputs < self.least_outputs else None


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


def read_utterances(
    directories: Sequence[Path], text: schema.Text, tokenizer: Tokenizer | None = None
) -> list[Utterance]:
    """All utterances of some features directories, in the order of their ids."""
    normalize = Normalizer(text)
    found: list[Utterance] = []
    with nothing_collected():
        for directory in directories:
            cuts = read_cuts(directory, copies=True)
            while some := [_fields(cut, where) for where, cut in islice(cuts, READ_AT_ONCE)]:
                texts = [normalize(spoken) for spoken, _ in some]
                tokens = (
                    [NO_TOKENS] * len(texts) if tokenizer is None else tokenizer.encode_all(texts)
                )
                found += [
                    Utterance(text=said, tokens=ids, directory=directory, **fields)
                    for (_, fields), said, ids in zip(some, texts, tokens, strict=True)
                ]
    return sorted(found, key=attrgetter("id"))


@contextmanager
def nothing_collected() -> Iterator[None]:
    """While much is made that stays: looking for garbage in it would take a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_held_out(
    directory: Path, text: schema.Text, tokenizer: Tokenizer | None = None
) -> list[Utterance]:
    """All utterances of a part that is decoded and scored; only a loss needs the tokenizer."""
    utterances = read_utterances([directory], text, tokenizer)
    empty = [utterance.id for utterance in utterances if not utterance.text]
    if empty:
        raise LightasrError(
            f"{directory}: `text` leaves nothing of {len(empty)} transcripts: "
            f"{', '.join(empty[:TOLD])}{', ...' if len(empty) > TOLD else ''}; an utterance "
            "without words has no error rate, leave it out of the part"
        )
    return utterances


def _fields(cut: dict[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """The transcript as the corpus spells it, and what else an utterance takes from its cut."""
    try:
        (supervision,) = cut["supervisions"]
        return supervision["text"], {
            "id": cut["id"],
            "speaker": supervision["speaker"],
            "seconds": cut["duration"],
            "frames": cut["features"]["num_frames"],
            "storage_key": cut["features"]["storage_key"],
            "speed": (cut.get("custom") or {}).get("speed", 1.0),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise LightasrError(
            f"{where}: expected a cut with features and one supervision with text and speaker "
            f"({error!r})"
        ) from None


def plan_batches(
    seconds: Sequence[float], batch_seconds: float, order: Sequence[int] | None = None
) -> list[list[int]]:
    """Indices in `order` (default: by length), cut where a batch would exceed `batch_seconds`.

    Padding counts: a batch costs its longest utterance times its size.
    """
    if order is None:
        order = np.argsort(np.asarray(seconds), kind="stable").tolist()
    batches: list[list[int]] = []
    batch: list[int] = []
    longest = 0.0
    for i in order:
        longest = max(longest, seconds[i])
        if batch and longest * (len(batch) + 1) <= batch_seconds:
            batch.append(i)
        else:
            batch = [i]
            batches.append(batch)
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
    blurred = np.asarray(seconds) * random.uniform(1 - BLUR, 1 + BLUR, len(seconds))
    batches = plan_batches(seconds, batch_seconds, np.argsort(blurred, kind="stable").tolist())
    random.shuffle(batches)
    return batches


def deal(batch: Sequence[int], seconds: Sequence[float], parts: int) -> list[list[int]]:
    """A batch cut into parts, of about equal size and from short to long; a part may be empty.

    Utterances of like length share a part, which saves padding; where sizes differ the parts with
    shorter utterances have one more, so that all take about equally long.
    """
    ordered = sorted(batch, key=seconds.__getitem__)
    size, left = divmod(len(ordered), parts)
    starts = [part * size + min(part, left) for part in range(parts + 1)]
    return [ordered[start:end] for start, end in pairwise(starts)]


class FeatureStore:
    """Loads features of utterances, keeping those of a small corpus in memory.

    With `by_speaker`, each speaker's have mean 0 and variance 1 over all that he or she says in a
    part: `model.normalize: speaker`.
    """

    def __init__(self, by_speaker: bool = False) -> None:
        self.by_speaker = by_speaker
        self.speakers: dict[Path, dict[str, Moments]] = {}
        self.kept: dict[tuple[Path, str], Tensor] = {}
        self.bytes = 0

    def load(self, utterance: Utterance) -> Tensor:
        where = utterance.directory, utterance.storage_key
        features = self.kept.get(where)
        if features is None:
            features = self._read(utterance)
            if self.by_speaker:
                features = self._moments(utterance).normalize(features)
            if self.bytes + features.nbytes <= CACHE_BYTES:
                self.kept[where] = features
                self.bytes += features.nbytes
        return features

    def _read(self, utterance: Utterance) -> Tensor:
        path = utterance.directory / FEATURES
        try:
            frames = LilcomChunkyReader(path).read(utterance.storage_key)
        except (OSError, ValueError, RuntimeError) as error:
            raise LightasrError(f"{path}: cannot read '{utterance.id}': {error}") from None
        if len(frames) != utterance.frames:
            raise LightasrError(
                f"{path}: '{utterance.id}' has {len(frames)} frames, its manifest says "
                f"{utterance.frames}; delete {utterance.directory} to have it made again"
            )
        return torch.from_numpy(frames)

    def _moments(self, utterance: Utterance) -> Moments:
        directory, speaker = utterance.directory, named(utterance.speaker, utterance.speed)
        if directory not in self.speakers:
            self.speakers[directory] = read_speakers(directory)
        try:
            return self.speakers[directory][speaker]
        except KeyError:
            raise LightasrError(
                f"{directory / SPEAKERS}: no speaker '{speaker}', but '{utterance.id}' is "
                f"theirs; delete {directory} to have it made again"
            ) from None

    def collate(self, utterances: list[Utterance]) -> Batch:
        features = [self.load(utterance) for utterance in utterances]
        tokens = [torch.from_numpy(u.tokens.astype(np.int64)) for u in utterances]
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
