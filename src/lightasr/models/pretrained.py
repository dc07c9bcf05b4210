"""A model that learns without labels, and what of it a recognizer begins with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightasr import schema
from lightasr.errors import LightasrError
from lightasr.models.asr import AcousticModel, Normalizer
from lightasr.models.registry import component
from lightasr.objectives.objective import Objective, Sizes, Tally, Views

SHARED = ("normalizer", "frontend", "encoder")
"""What a recognizer takes over."""
LAYER = re.compile(r"encoder\.\w+\.(\d+)\.")
LONG = 1 << 16  # frames, by which it is found how many a front end makes into one


class Learnt(NamedTuple):
    """What comes of a batch."""

    nats: Tensor
    """Of the hidden frames, summed."""
    tally: Tally
    y_btd: Tensor
    """The encoder's outputs."""
    lengths_b: Tensor


class PretrainingModel(nn.Module):
    """(B, T, F) features and their lengths -> how well hidden frames are told."""

    def __init__(self, config: schema.PretrainModel) -> None:
        super().__init__()
        features = config.features.dim
        self.normalizer = Normalizer(config.normalize, features)
        self.frontend = component("frontend", config.frontend)(config.frontend, features)
        self.encoder = component("encoder", config.encoder)(config.encoder, self.frontend.dim)
        factor = frames_in_one(self.frontend)
        sizes = Sizes(features, factor, cast(int, self.frontend.dim), cast(int, self.encoder.dim))
        self.objective = cast(
            Objective, component("objective", config.objective)(config.objective, sizes)
        )

    def forward(self, x_btf: Tensor, lengths_b: Tensor, labels_bt: Tensor | None = None) -> Learnt:
        objective = self.objective
        x_btf = self.normalizer(x_btf, lengths_b)
        frame_lengths_b = self.output_lengths(lengths_b)
        frames = int(self.output_lengths(torch.tensor([x_btf.shape[1]])))
        hidden_bt = objective.hidden(frame_lengths_b, frames)
        frames_btd, _ = self.frontend(objective.hide_features(x_btf, hidden_bt), lengths_b)
        views = Views(x_btf, lengths_b, frames_btd, frame_lengths_b, labels_bt)
        targets = objective.targets(views, hidden_bt)
        y_btd, _ = self.encoder(objective.hide_frames(frames_btd, hidden_bt), frame_lengths_b)
        nats, tally = objective.loss(y_btd, targets, hidden_bt)
        return Learnt(nats, tally, y_btd, frame_lengths_b)

    def encode(self, x_btf: Tensor, lengths_b: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T', D): what the encoder says where nothing is hidden."""
        frames_btd, lengths_b = self.frontend(self.normalizer(x_btf, lengths_b), lengths_b)
        y_btd, lengths_b = self.encoder(frames_btd, lengths_b)
        return y_btd, lengths_b

    def output_lengths(self, lengths_b: Tensor) -> Tensor:
        """Frames that the encoder sees, for features of these lengths."""
        return self.frontend.output_lengths(lengths_b)  # type: ignore[operator]


def frames_in_one(frontend: nn.Module) -> int:
    """How many frames of features a front end makes into one."""
    frames = frontend.output_lengths(torch.tensor([LONG]))  # type: ignore[operator]
    return round(LONG / int(frames))


def layers_above(model: AcousticModel) -> dict[str, int]:
    """For each parameter below the head: how many layers up to it, its own counted."""
    names = [name for name, _ in model.named_parameters() if not name.startswith("head.")]
    of = {name: int(found[1]) for name in names if (found := LAYER.match(name))}
    layers = 1 + max(of.values(), default=-1)
    above, before_first = {}, True
    for name in names:
        before_first = before_first and name not in of
        above[name] = layers - of[name] if name in of else layers + 1 if before_first else 1
    return above


def begin_with(model: AcousticModel, directory: Path) -> None:
    """Take normaliser, front end and encoder from `results/pretrain/<label>-<key>/`."""
    path = directory / "model.safetensors"
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LightasrError(f"{path}: not the weights of a pretrained model: {error}") from None
    for name in SHARED:
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in weights.items()
            if key.startswith(f"{name}.")
        }
        try:
            getattr(model, name).load_state_dict(own)
        except RuntimeError as error:
            raise LightasrError(f"{path}: not of this model's {name}: {error}") from None
