"""The acoustic model: normalised features -> frontend -> encoder -> head -> log-probabilities."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightasr import schema
from lightasr.data.moments import Moments
from lightasr.errors import LightasrError
from lightasr.models.layers import Layered, LayerReader, valid_mask
from lightasr.models.registry import component


class Normalizer(nn.Module):
    """Mean and variance normalisation of features, as `model.normalize` names it."""

    def __init__(self, kind: str, features: int) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.mean: Tensor
        self.std: Tensor

    def measure(self, utterances: Iterable[Tensor]) -> None:
        """Take mean and standard deviation from features (T, F) of training utterances."""
        moments = Moments.of(utterances)
        self.mean.copy_(moments.mean_f)
        self.std.copy_(moments.std_f)

    def forward(self, x_btf: Tensor, lengths_b: Tensor) -> Tensor:
        if self.kind in {"none", "speaker"}:  # a speaker's moments are known where data is read
            return x_btf
        if self.kind == "global":
            return (x_btf - self.mean) / self.std
        valid_bt1 = valid_mask(lengths_b, x_btf.shape[1])[:, :, None].to(x_btf.dtype)
        count_b11 = lengths_b.clamp(min=1)[:, None, None]
        mean_b1f = (x_btf * valid_bt1).sum(1, keepdim=True) / count_b11
        centred = (x_btf - mean_b1f) * valid_bt1
        return centred / ((centred**2).sum(1, keepdim=True) / count_b11 + 1e-5).sqrt()


class AcousticModel(nn.Module):
    """(B, T, F) features and their lengths -> (B, T', V) log-probabilities and their lengths."""

    def __init__(self, config: schema.Model, features: int, symbols: int) -> None:
        super().__init__()
        self.normalizer = Normalizer(config.normalize, features)
        self.frontend = component("frontend", config.frontend)(config.frontend, features)
        self.encoder = component("encoder", config.encoder)(config.encoder, self.frontend.dim)
        head, sizes = component("head", config.head), [self.encoder.dim, symbols]
        self.layered = issubclass(head, LayerReader)
        """Whether the head reads every layer of the encoder."""
        if self.layered:
            if not isinstance(self.encoder, Layered):
                raise LightasrError(
                    f"model.head: '{config.head.name}' reads every layer of the encoder, but "
                    f"'{config.encoder.name}' shows only its last; derive it from Layered"
                )
            sizes.append(self.encoder.depth)
        self.head = head(config.head, *sizes)
        self.still: tuple[str, ...] = ()
        """Parts that behave as in evaluation while others are trained."""

    def freeze(self, *parts: str) -> None:
        """Keep these parts as they are, their statistics too."""
        self.still = parts
        for name in parts:
            getattr(self, name).eval().requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.still:
            getattr(self, name).eval()
        return self

    def forward(
        self, x_btf: Tensor, lengths_b: Tensor, augment: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        x_btf = self.normalizer(x_btf, lengths_b)
        if augment is not None:
            x_btf = augment(x_btf, lengths_b)
        x_btd, lengths_b = self.frontend(x_btf, lengths_b)
        if self.layered:
            states = cast(Layered, self.encoder).states(x_btd, lengths_b)
            scores_btv = self.head(list(states))
        else:
            x_btd, lengths_b = self.encoder(x_btd, lengths_b)
            scores_btv = self.head(x_btd)
        return scores_btv.float().log_softmax(-1), lengths_b

    def output_lengths(self, lengths_b: Tensor) -> Tensor:
        """Frames of log-probabilities for features of these lengths."""
        return self.frontend.output_lengths(lengths_b)  # type: ignore[operator]

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def save_model(model: nn.Module, path: Path) -> None:
    """Weights and buffers as safetensors: no code in the file."""
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)


def load_model(config: schema.Model, features: int, symbols: int, path: Path) -> AcousticModel:
    """A trained model, ready to be used."""
    model = AcousticModel(config, features, symbols)
    load_weights(model, path)
    return model.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Weights and buffers that `save_model` wrote."""
    try:
        model.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise LightasrError(f"{path}: not the weights of this model: {error}") from None
