"""Stage `cluster`: k-means over frames, and the cluster of each frame that a pretraining may hide.

What is clustered are features, as many side by side as the front end makes into one frame, or the
outputs of a layer of an earlier pretraining. Clusters are found in some hours of the training parts
that lie in memory, by whole passes over them; every frame of these parts and of dev is then put
into the nearest one. The same seed gives the same clusters on the same machine, also after a kill:
each pass, and each piece of the labels, is kept.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from lightasr import schema
from lightasr.cost.measure import Meter, peak_memory_mb
from lightasr.data.batches import FeatureStore, Utterance, plan_batches, read_utterances
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.models.asr import Normalizer, load_weights
from lightasr.models.layers import Layered, stacked, valid_mask
from lightasr.models.pretrained import PretrainingModel, frames_in_one
from lightasr.models.registry import component
from lightasr.objectives.objective import perplexity
from lightasr.progress import Bar, track
from lightasr.stage import seconds_before
from lightasr.threads import usable_cores
from lightasr.train import checkpoint

CENTROIDS, LABELS = "centroids.safetensors", "labels.npz"
FOUND = "found.pt"  # after each pass
PIECE_SECONDS = 10 * 3600.0  # of speech, whose labels are kept together
Labels = dict[str, NDArray[np.int16]]
FRAMES_AT_ONCE = 16_384
FEATURE_BATCH_SECONDS = 600.0
BEGIN_AMONG = 200  # frames a cluster, of which k-means++ chooses where clusters begin
MOST_PASSES = 100
LEAST_GAIN = 1e-4  # of the squared distance; a pass that gains less is the last one


def run(
    config: schema.ClusterSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """`centroids.safetensors` and `labels.npz`."""
    title, clock = f"cluster {work.name}", time.monotonic()
    torch.set_num_threads(usable_cores())
    random = np.random.default_rng(config.seed)
    dev_name = f"features/{config.dev}"
    parts = {name: path for name, path in inputs.items() if name.startswith("features/")}
    dev = read_utterances([parts.pop(dev_name)], schema.Text())
    training = read_utterances(list(parts.values()), schema.Text())
    source = _source(config, inputs)
    meter = Meter(source.device)
    training = [each for each in training if each.seconds <= source.longest]
    if not training:
        raise LightasrError(f"{title}: there is no utterance to find clusters in")
    _check_names([*training, *dev])

    drawn = draw(training, 3600 * config.hours, random)
    source.measure(drawn)
    found = found_before(work, source.device)
    if found is None or not found.settled:
        found = found_in(source, drawn, config.clusters, random, found, work, title)
    with track(f"{title}  labels", total=len(training) + len(dev)) as bar:
        labelled = labels_in_pieces(source, training, found.centroids_kd, bar, work / "train")
        dev_labelled = labels_in_pieces(source, dev, found.centroids_kd, bar, work / "dev")
    save_file({"centroids": found.centroids_kd.cpu().contiguous()}, out / CENTROIDS)
    write_labels({**labelled.labels, **dev_labelled.labels}, out / LABELS)
    labels_n = torch.from_numpy(np.concatenate(list(labelled.labels.values()))).long()
    sizes_k = torch.bincount(labels_n, minlength=config.clusters)
    return {
        "clustered": source.name,
        "dim": source.dim,
        "passes": len(found.inertias),
        "frames_found_in": found.frames,
        "frames": len(labels_n),
        "inertia": labelled.inertia,
        "dev_inertia": dev_labelled.inertia,
        "perplexity": perplexity(sizes_k.double()).item(),
        "empty": int((sizes_k == 0).sum()),
        **_costs(source.device, meter, [*seconds_before(work), time.monotonic() - clock]),
    }


def _costs(device: torch.device, meter: Meter, seconds: list[float]) -> dict[str, Any]:
    """Beside those of the pretraining that learns these clusters; energy of an only attempt."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "gpu_seconds": sum(seconds) if on_gpu else None,
        "peak_memory_mb": peak_memory_mb(device),
        "energy_joules": meter.since_last() if len(seconds) == 1 else None,
        "energy_source": meter.source,
    }


def draw(
    utterances: Sequence[Utterance], seconds: float, random: np.random.Generator
) -> list[Utterance]:
    """As many as fit into `seconds`, but one at least, in the order that they were in."""
    order = random.permutation(len(utterances))
    lasting = np.cumsum([utterances[i].seconds for i in order])
    fit = max(1, int(np.searchsorted(lasting, seconds, side="right")))
    return [utterances[i] for i in sorted(order[:fit])]


def _check_names(utterances: Sequence[Utterance]) -> None:
    """Labels are found by the id of their utterance."""
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.id in seen:
            raise LightasrError(
                f"{utterance.directory}: '{utterance.id}' is the id of another utterance, too; "
                "labels of frames need ids of their own in all parts together"
            )
        seen.add(utterance.id)


# --- what is clustered ---------------------------------------------------------------------------


class Encoded(NamedTuple):
    """Of some utterances."""

    utterances: list[Utterance]
    frames: list[int]
    """How many each has."""
    x_nd: Tensor
    """All of them, one utterance after the other."""


class Source(ABC):
    """Makes vectors of utterances, one of each frame that the encoder of a pretraining sees."""

    name: str
    """In `run.json`."""
    dim: int
    """Numbers in a vector."""
    batch_seconds = FEATURE_BATCH_SECONDS
    longest = math.inf
    """Seconds; a pretraining learns from no longer utterance of the training parts."""

    def __init__(self, by_speaker: bool) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.store = FeatureStore(by_speaker)

    @abstractmethod
    def vectors(self, x_btf: Tensor, lengths_b: Tensor) -> Tensor:
        """(B, T', dim)."""

    @abstractmethod
    def output_lengths(self, lengths_b: Tensor) -> Tensor:
        """Frames after the front end."""

    @abstractmethod
    def measure(self, utterances: Sequence[Utterance]) -> None:
        """Told what clusters are found in, before anything is encoded."""

    @torch.no_grad()
    def encoded(self, utterances: list[Utterance]) -> Iterator[Encoded]:
        """From short to long."""
        batches = plan_batches([each.seconds for each in utterances], self.batch_seconds)
        for batch in self.store.stream(utterances, batches):
            lengths_b = batch.lengths_b.to(self.device)
            x_btd = self.vectors(batch.features_btf.to(self.device), lengths_b)
            frames_b = self.output_lengths(lengths_b)
            x_nd = x_btd[valid_mask(frames_b, x_btd.shape[1])]
            yield Encoded(batch.utterances, frames_b.tolist(), x_nd)


class FeatureSource(Source):
    """Normalised features, those that become one frame side by side."""

    name = "features"

    def __init__(self, config: schema.ClusteredFeatures) -> None:
        super().__init__(by_speaker=config.normalize == "speaker")
        features = config.features.dim
        self.normalizer = Normalizer(config.normalize, features).to(self.device)
        self.frontend = component("frontend", config.frontend)(config.frontend, features)
        self.factor = frames_in_one(self.frontend)
        self.dim = self.factor * features

    def measure(self, utterances: Sequence[Utterance]) -> None:
        if self.normalizer.kind == "global":
            self.normalizer.measure(self.store.load(each) for each in utterances)

    def vectors(self, x_btf: Tensor, lengths_b: Tensor) -> Tensor:
        return stacked(self.normalizer(x_btf, lengths_b), lengths_b, self.factor)

    def output_lengths(self, lengths_b: Tensor) -> Tensor:
        return cast(Tensor, self.frontend.output_lengths(lengths_b))  # type: ignore[operator]


class LearntSource(Source):
    """What a layer of a pretrained encoder says; nothing is hidden from it."""

    def __init__(self, directory: Path, layer: int | None) -> None:
        path = directory / "config.json"
        tree = json.loads(path.read_text(encoding="utf-8"))
        config = check(schema.PretrainSlice, tree, [Layer(str(path), None, tree)])
        super().__init__(by_speaker=config.normalize == "speaker")
        self.batch_seconds, self.longest = config.train.batch_seconds, config.train.max_seconds
        self.model = PretrainingModel(config)
        load_weights(self.model, directory / "model.safetensors")
        self.model.to(self.device).eval()
        encoder: nn.Module = self.model.encoder
        if not isinstance(encoder, Layered):
            raise LightasrError(
                f"{path}: encoder: '{config.encoder.name}' shows only its last layer, but one of "
                "them is to be clustered; derive it from Layered"
            )
        self.encoder, self.dim = encoder, cast(int, encoder.dim)
        self.layer = layer or (encoder.depth + 1) // 2
        if self.layer > encoder.depth:
            raise LightasrError(
                f"pretrain.objective.layer: {layer}, but the encoder of {directory} has "
                f"{encoder.depth} layers"
            )
        self.name = f"layer {self.layer} of {encoder.depth} of {directory.name}"

    def measure(self, utterances: Sequence[Utterance]) -> None:
        """Nothing: all that it takes was learnt."""

    def vectors(self, x_btf: Tensor, lengths_b: Tensor) -> Tensor:
        x_btf = self.model.normalizer(x_btf, lengths_b)
        frames_btd, frames_b = self.model.frontend(x_btf, lengths_b)
        states = self.encoder.states(frames_btd, frames_b)
        return next(islice(states, self.layer - 1, None)).float()  # layers above are not computed

    def output_lengths(self, lengths_b: Tensor) -> Tensor:
        return self.model.output_lengths(lengths_b)


def _source(config: schema.ClusterSlice, inputs: dict[str, Path]) -> Source:
    if config.of is not None:
        return FeatureSource(config.of)
    return LearntSource(inputs["pretrain"], config.layer)


def collected(source: Source, utterances: list[Utterance], bar: Bar) -> Tensor:
    """(N, dim): all frames, in one piece of memory."""
    frames = source.output_lengths(torch.tensor([each.frames for each in utterances]))
    x_nd = torch.empty(int(frames.sum()), source.dim, device=source.device)
    filled = 0
    for some in source.encoded(utterances):
        x_nd[filled : filled + len(some.x_nd)] = some.x_nd
        filled += len(some.x_nd)
        bar.update(len(some.utterances))
    return x_nd


# --- k-means -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clusters:
    """What k-means has found so far."""

    centroids_kd: Tensor
    frames: int
    """It is found in."""
    inertias: tuple[float, ...] = ()
    """Mean squared distance before each pass."""

    @property
    def settled(self) -> bool:
        """Whether another pass would gain next to nothing."""
        if len(self.inertias) >= MOST_PASSES:
            return True
        return len(self.inertias) > 1 and not gained(*self.inertias[-2:])


def found_in(
    source: Source,
    drawn: list[Utterance],
    clusters: int,
    random: np.random.Generator,
    found: Clusters | None,
    work: Path,
    title: str,
) -> Clusters:
    """Clusters of all frames of some utterances, from where an earlier run was killed."""
    with track(f"{title}  reading", total=len(drawn)) as bar:
        x_nd = collected(source, drawn, bar)
    with track(f"{title}  k-means", total=MOST_PASSES) as bar:
        if found is None:
            found = Clusters(beginnings(x_nd, clusters, random), len(x_nd))
        bar.update(len(found.inertias))
        for better in passes(x_nd, found):
            found = better
            state = {"centroids_kd": found.centroids_kd.cpu(), "frames": found.frames}
            checkpoint.save(work / FOUND, {**state, "inertias": list(found.inertias)})
            bar.update(1, distance=found.inertias[-1])
    return found


def found_before(work: Path, device: torch.device) -> Clusters | None:
    """What the last pass has left; None where there was none."""
    if not (work / FOUND).exists():
        return None
    state = checkpoint.load(work / FOUND)
    return Clusters(state["centroids_kd"].to(device), state["frames"], tuple(state["inertias"]))


def passes(x_nd: Tensor, found: Clusters) -> Iterator[Clusters]:
    """Passes over all rows, until they gain next to nothing."""
    while not found.settled:
        centroids_kd, inertia = improved(x_nd, found.centroids_kd)
        found = Clusters(centroids_kd, found.frames, (*found.inertias, inertia))
        yield found


def gained(before: float, after: float) -> bool:
    """Whether a pass has made enough better."""
    return before - after > LEAST_GAIN * before


def beginnings(x_nd: Tensor, clusters: int, random: np.random.Generator) -> Tensor:
    """k-means++: each is a row, drawn in proportion to its squared distance from those before.

    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", 2007. Ours: drawn from
    some of the rows, as each row drawn takes a pass over all of them.
    """
    some = random.choice(len(x_nd), min(len(x_nd), BEGIN_AMONG * clusters), replace=False)
    some_nd = x_nd[torch.from_numpy(some).to(x_nd.device)]
    chosen = [int(random.integers(len(some)))]
    distances_n = _squared(some_nd - some_nd[chosen[0]])
    while len(chosen) < clusters:
        reach_n = distances_n.double().cpu().numpy().cumsum()  # a GPU's sum is not always the same
        if not reach_n[-1] > 0:
            raise LightasrError(
                f"pretrain.objective.clusters: {clusters}, but {len(some)} frames that were drawn "
                f"are only {len(chosen)} different ones; lower it, or raise cluster_hours"
            )
        drawn = np.searchsorted(reach_n, random.random() * reach_n[-1], side="right")
        chosen.append(min(int(drawn), len(some) - 1))
        distances_n = torch.minimum(distances_n, _squared(some_nd - some_nd[chosen[-1]]))
    return some_nd[chosen]


def improved(x_nd: Tensor, centroids_kd: Tensor) -> tuple[Tensor, float]:
    """The means of the rows nearest to each; and the mean squared distance there was before.

    One that is nearest to no row begins anew, at a row that is farthest from its own.
    """
    labels_n, distances_n = nearest(x_nd, centroids_kd)
    size = len(centroids_kd)
    sums_kd = torch.zeros(centroids_kd.shape, dtype=torch.float64, device=x_nd.device)
    for x_pd, labels_p in zip(_pieces(x_nd), _pieces(labels_n), strict=True):
        # Sorted, since sums are then made in the same order on any device.
        ordered_pd = x_pd[labels_p.argsort(stable=True)].double()
        lengths_k = torch.bincount(labels_p, minlength=size)
        sums_kd += torch.segment_reduce(ordered_pd, "sum", lengths=lengths_k, axis=0)
    counts_k = torch.bincount(labels_n, minlength=size)
    means_kd = (sums_kd / counts_k[:, None].clamp(min=1)).to(x_nd.dtype)
    (empty,) = torch.nonzero(counts_k == 0, as_tuple=True)
    means_kd[empty] = x_nd[distances_n.topk(min(len(empty), len(x_nd))).indices]
    return means_kd, distances_n.double().mean().item()


def nearest(x_nd: Tensor, centroids_kd: Tensor) -> tuple[Tensor, Tensor]:
    """Which centroid is nearest to each row, the first of equal ones; and the squared distance."""
    half_k = _squared(centroids_kd) / 2
    labels, distances = [], []
    for x_pd in _pieces(x_nd):
        labels.append((x_pd @ centroids_kd.T - half_k).argmax(1))
        distances.append(_squared(x_pd - centroids_kd[labels[-1]]))
    return torch.cat(labels), torch.cat(distances)


def _squared(x_nd: Tensor) -> Tensor:
    return x_nd.square().sum(1)


def _pieces(x_nd: Tensor) -> tuple[Tensor, ...]:
    """Rows in pieces, so that what is made of them takes little memory."""
    return torch.split(x_nd, FRAMES_AT_ONCE)


# --- labels --------------------------------------------------------------------------------------


class Labelled(NamedTuple):
    """Frames of some utterances."""

    labels: Labels
    """Of each utterance's frames, by its id."""
    inertia: float
    """Mean squared distance of a frame from the centroid of its cluster."""


def labels_in_pieces(
    source: Source, utterances: list[Utterance], centroids_kd: Tensor, bar: Bar, kept: Path
) -> Labelled:
    """The cluster of each frame; what is done of it stays, should the run be killed."""
    labels: Labels = {}
    distance, count = 0.0, 0
    for number, piece in enumerate(in_pieces(utterances)):
        path = kept.with_name(f"{kept.name}-{number}.pt")
        if not path.exists():
            checkpoint.save(path, labels_of(source, piece, centroids_kd))
        state = checkpoint.load(path)
        bar.update(len(piece))
        distance, count = distance + state["distance"], count + len(state["labels_n"])
        of_each = torch.split(state["labels_n"], state["frames"])
        labels |= {name: own.numpy() for name, own in zip(state["ids"], of_each, strict=True)}
    return Labelled(labels, distance / max(1, count))


def in_pieces(utterances: list[Utterance]) -> Iterator[list[Utterance]]:
    """Some hours each, in their order."""
    piece: list[Utterance] = []
    seconds = 0.0
    for utterance in utterances:
        piece.append(utterance)
        seconds += utterance.seconds
        if seconds >= PIECE_SECONDS:
            yield piece
            piece, seconds = [], 0.0
    if piece:
        yield piece


def labels_of(source: Source, utterances: list[Utterance], centroids_kd: Tensor) -> dict[str, Any]:
    """The cluster of each frame, and the sum of squared distances."""
    labels: list[Tensor] = []
    ids: list[str] = []
    frames: list[int] = []
    distance = 0.0
    for some in source.encoded(utterances):
        labels_n, distances_n = nearest(some.x_nd, centroids_kd)
        labels.append(labels_n.short().cpu())
        distance += distances_n.double().sum().item()
        ids += [each.id for each in some.utterances]
        frames += some.frames
    return {"ids": ids, "frames": frames, "labels_n": torch.cat(labels), "distance": distance}


def write_labels(labels: Labels, path: Path) -> None:
    """One row of all labels; `offsets` says where those of each id begin, and where all end."""
    ids = sorted(labels)
    offsets = np.cumsum([0, *(len(labels[name]) for name in ids)])
    all_labels = np.concatenate([labels[name] for name in ids])
    np.savez(path, ids=np.array(ids), offsets=offsets, labels=all_labels)


class FrameLabels:
    """What the stage has left: the cluster of each frame of an utterance."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LABELS
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                ids, offsets = arrays["ids"].tolist(), arrays["offsets"].tolist()
                self.labels_n = torch.from_numpy(arrays["labels"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise LightasrError(f"{self.path}: not labels of frames: {error!r}") from None
        self.places = dict(zip(ids, pairwise(offsets), strict=True))

    def batch(self, ids: Sequence[str], lengths_b: Tensor, frames: int) -> Tensor:
        """(B, frames), 0 where there is no frame; of no utterance where there are no ids."""
        labels_bt = torch.zeros(len(lengths_b), frames, dtype=torch.int64)
        for labels_t, name, length in zip(labels_bt, ids, lengths_b.tolist(), strict=False):
            labels_t[:length] = self.of(name, length)
        return labels_bt

    def of(self, name: str, length: int) -> Tensor:
        """(length,) of one utterance."""
        if name not in self.places:
            raise LightasrError(f"{self.path}: no labels of '{name}'")
        begin, end = self.places[name]
        if end - begin != length:
            raise LightasrError(
                f"{self.path}: '{name}' has {end - begin} labels, but the front end makes "
                f"{length} frames of it"
            )
        return self.labels_n[begin:end]
