"""A training step of BEST-RQ: ours beside one made of SpeechBrain's components.

Batch, normalisation, front end and encoder are the same modules in both; compared is the rest:
what is hidden, labels, noise, head and loss. SpeechBrain's are put together as its recipe for
LibriSpeech does: one mask for the whole batch, labels by the distance of each hidden frame from
each code, scores of all frames, of which those of the hidden ones are taken. Ours hides as long
spans and as large a share of the frames; projection, codes and head begin with the same numbers.
A step ends with the gradients; the optimiser's part would be the same in both.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lightasr import schema
from lightasr.bench.kernels import without_speechbrain
from lightasr.cost.timing import (
    SAMPLE_SECONDS,
    Measured,
    described,
    timed,
    torch_threads,
    warmed_up,
)
from lightasr.models.pretrained import PretrainingModel
from lightasr.objectives.objective import Views
from lightasr.objectives.pretraining.bestrq import BestRQ
from lightasr.progress import Bar, say, track
from lightasr.threads import usable_cores

TITLE = "BEST-RQ: a training step, and what it consists of, beside SpeechBrain's components"
CPU = torch.device("cpu")
ROUNDS = 7
WARM_UP = 1
OURS, THEIRS = "ours", "speechbrain"
SPAN_FRAMES, SPAN_PROBABILITY = 4, 0.15  # of the recipe: frames of features; that a span begins
HIDDEN = SPAN_FRAMES * SPAN_PROBABILITY  # spans do not overlap there
NOISE = 0.1
NOTE = (
    "`step`: all of it, with gradients. `encoder`: what both share, normalisation, front end and "
    "encoder, with gradients. `labels`: those of the hidden frames. `told`: head and loss, with "
    "gradients down to the encoder's outputs. `_mb` is the most that is allocated above weights "
    "and batch. `times_as_fast` is the median over rounds of SpeechBrain's time over ours."
)


@dataclass(frozen=True)
class Case:
    """A batch of utterances of equal length, and a model."""

    mixer: str = "mhsa"
    utterances: int = 16
    frames: int = 1000
    codes: int = 8192
    code_dim: int = 16
    dim: int = 256
    layers: int = 4

    def pretraining(self) -> schema.PretrainSlice:
        encoder = {"name": "transformer", "dim": self.dim, "layers": self.layers}
        objective = {"name": "bestrq", "codes": self.codes, "code_dim": self.code_dim}
        # A span of four frames of features is one frame of the encoder's.
        masks = {"probability": HIDDEN, "span": 1, "noise": NOISE}
        return schema.PretrainSlice.model_validate(
            {
                "features": schema.Features(),
                "normalize": "utterance",
                "frontend": {"name": "conv2d"},
                "encoder": {**encoder, "mixer": {"name": self.mixer}},
                "objective": objective | masks,
                "train": schema.PretrainTrain(),
                "collapse": schema.Collapse(),
                "dev": "dev-clean",
            }
        )


WHOLE = tuple(Case(mixer) for mixer in ("mhsa", "summarymixing"))
"""Whose steps are measured."""
LABELS = (
    Case(),
    # Few utterances, as four times the codes would take SpeechBrain's several gigabytes else.
    *(Case(utterances=4, codes=v, code_dim=c) for v, c in ((8192, 16), (32768, 16), (8192, 64))),
)
"""Whose labels are measured alone."""


# --- the two ------------------------------------------------------------------------------------


class Ours:
    """The model that the stage `pretrain` trains, and parts of its step."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        config = case.pretraining()
        self.model = PretrainingModel(config)
        self.objective = cast(BestRQ, self.model.objective)
        self.x_btf = torch.randn(case.utterances, case.frames, config.features.dim)
        self.lengths_b = torch.full((case.utterances,), case.frames)
        self.normal_btf = self.model.normalizer(self.x_btf, self.lengths_b)
        self.frame_lengths_b = self.model.output_lengths(self.lengths_b)
        frames = int(self.frame_lengths_b[0])
        self.hidden_bt = self.objective.hidden(self.frame_lengths_b, frames)
        self.y_btd = torch.randn(case.utterances, frames, case.dim, requires_grad=True)
        self.targets = self.labels()

    def step(self) -> None:
        self.model.zero_grad()
        learnt = self.model(self.x_btf, self.lengths_b)
        (learnt.nats / learnt.tally.frames).backward()

    def encoder(self) -> None:
        self.model.zero_grad()
        x_btf = self.model.normalizer(self.x_btf, self.lengths_b)
        frames_btd, lengths_b = self.model.frontend(x_btf, self.lengths_b)
        self.model.encoder(frames_btd, lengths_b)[0].sum().backward()

    def labels(self) -> Tensor:
        # What the front end made is not read.
        views = Views(self.normal_btf, self.lengths_b, self.normal_btf, self.frame_lengths_b)
        return self.objective.targets(views, self.hidden_bt)

    def told(self) -> None:
        self.objective.zero_grad()
        self.y_btd.grad = None
        nats, tally = self.objective.loss(self.y_btd, self.targets, self.hidden_bt)
        (nats / tally.frames).backward()  # type: ignore[no-untyped-call]


class SpeechBrains:
    """The same normalisation, front end and encoder; SpeechBrain's components for the rest."""

    def __init__(self, ours: Ours) -> None:
        self.ours, self.factor = ours, ours.objective.factor
        _, codes, code_dim = ours.objective.codes_gvc.shape
        inputs, tell = ours.objective.projection_gfc.shape[1], ours.objective.tell
        quantisers = import_module("speechbrain.nnet.quantisers")
        self.quantizer = quantisers.RandomProjectionQuantizer(inputs, code_dim, codes)
        self.quantizer.P.copy_(ours.objective.projection_gfc[0])
        self.quantizer.CB.copy_(ours.objective.codes_gvc[0])
        linear = import_module("speechbrain.nnet.linear")
        self.head: nn.Module = linear.Linear(input_size=tell.in_features, n_neurons=codes)
        self.head.w.load_state_dict(tell.state_dict())
        self.compute_mask = import_module("speechbrain.lobes.models.BESTRQ").compute_mask
        self.hidden_n = self.hidden()
        self.targets_bn = self.labels()

    def hidden(self) -> Tensor:
        """Frames of features that are hidden, whole spans and the same of all utterances."""
        x_btf, lengths = self.ours.x_btf, self.ours.lengths_b.tolist()
        return self.compute_mask(x_btf.shape, lengths, SPAN_PROBABILITY, SPAN_FRAMES)

    def step(self) -> None:
        ours = self.ours
        ours.model.zero_grad()
        self.head.zero_grad()
        x_btf = ours.model.normalizer(ours.x_btf, ours.lengths_b)
        hidden_n = self.hidden()
        targets_bn = self.labels_of(x_btf, hidden_n)
        x_btf[:, hidden_n] = torch.normal(
            0.0, NOISE, size=(len(x_btf), len(hidden_n), x_btf.shape[2])
        )
        frames_btd, lengths_b = ours.model.frontend(x_btf, ours.lengths_b)
        y_btd, _ = ours.model.encoder(frames_btd, lengths_b)
        self.loss(y_btd, targets_bn, hidden_n).backward()  # type: ignore[no-untyped-call]

    def labels(self) -> Tensor:
        return self.labels_of(self.ours.normal_btf, self.hidden_n)

    def told(self) -> None:
        self.head.zero_grad()
        self.ours.y_btd.grad = None
        loss = self.loss(self.ours.y_btd, self.targets_bn, self.hidden_n)
        loss.backward()  # type: ignore[no-untyped-call]

    def labels_of(self, x_btf: Tensor, hidden_n: Tensor) -> Tensor:
        batch, frames, features = x_btf.shape
        stacked_bts = x_btf.reshape(batch, frames // self.factor, self.factor * features)
        return self.quantizer(stacked_bts[:, self.spans(hidden_n)])

    def loss(self, y_btd: Tensor, targets_bn: Tensor, hidden_n: Tensor) -> Tensor:
        scores_bnv = self.head(y_btd)[:, self.spans(hidden_n)]
        return F.cross_entropy(scores_bnv.flatten(0, 1), targets_bn.flatten())

    def spans(self, hidden_n: Tensor) -> Tensor:
        """Frames of the encoder, which are spans of frames of features."""
        return hidden_n[:: self.factor] // self.factor


# --- measuring ----------------------------------------------------------------------------------


class Part(NamedTuple):
    """What is measured of a case, by whose it is."""

    name: str
    case: Case
    work: Mapping[str, Callable[[], object]]


def rows() -> tuple[list[Measured], Measured]:
    """A row for each part of each case, and what the numbers depend on."""
    why = without_speechbrain(CPU)
    where = described(CPU)
    if why is not None:
        say(f"bench pretraining: without SpeechBrain's components: {why}")
    else:
        where[THEIRS] = version(THEIRS)
    with torch_threads(usable_cores()):
        total = (1 + ROUNDS) * sum(1 for _ in plan())
        with track("bench pretraining", total=total) as bar:
            found = [row(part, bar) for part in parts(why is None)]
        return found, where | {"threads": torch.get_num_threads()}


def plan() -> Iterator[tuple[str, Case]]:
    """The parts and their cases, in order."""
    for case in WHOLE:
        yield "step", case
        yield "encoder", case
    for case in LABELS:
        yield "labels", case
    yield "told", LABELS[0]


def parts(with_theirs: bool) -> Iterator[Part]:
    """One after the other, so that the memory of one is free before the next."""
    for name, case in plan():
        ours = Ours(case)
        work: dict[str, Callable[[], object]] = {OURS: getattr(ours, name)}
        if with_theirs and name != "encoder":
            work[THEIRS] = getattr(SpeechBrains(ours), name)
        yield Part(name, case, work)


def row(part: Part, bar: Bar) -> Measured:
    """All makers of a part in turns, so that whatever else the machine does meets all."""
    calls = {who: warmed_up(work, CPU, WARM_UP, SAMPLE_SECONDS) for who, work in part.work.items()}
    bar.update(part=part.name)
    seconds: dict[str, list[float]] = {who: [] for who in part.work}
    for _ in range(ROUNDS):
        for who, work in part.work.items():
            seconds[who].append(timed(work, CPU, calls[who]))
        bar.update(part=part.name)
    ms = {who: 1000 * statistics.median(taken) for who, taken in seconds.items()}
    mb = {who: allocated(work) / 1e6 for who, work in part.work.items()}
    case = part.case
    return {
        "part": part.name,
        "mixer": case.mixer if part.name in {"step", "encoder"} else None,
        "utterances": case.utterances,
        "codes": case.codes if part.name != "encoder" else None,
        "code_dim": case.code_dim if part.name != "encoder" else None,
        "ours_ms": ms[OURS],
        "speechbrain_ms": ms.get(THEIRS),
        "times_as_fast": times_as_fast(seconds),
        "ours_mb": mb[OURS],
        "speechbrain_mb": mb.get(THEIRS),
    }


def times_as_fast(seconds: Mapping[str, list[float]]) -> float | None:
    """Round by round, since what disturbs a round disturbs both."""
    if THEIRS not in seconds:
        return None
    pairs = zip(seconds[THEIRS], seconds[OURS], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def allocated(work: Callable[[], object]) -> int:
    """The most bytes that work holds at a time of what it allocates, by torch's profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as watch:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        watch.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    held: dict[int, int] = {}
    most = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        place, size = event["args"]["Addr"], event["args"]["Bytes"]
        if size > 0:
            held[place] = size
            most = max(most, sum(held.values()))
        else:  # what was there before, and is freed now, does not count
            held.pop(place, None)
    return most
