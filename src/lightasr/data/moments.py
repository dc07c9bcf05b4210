"""Mean and standard deviation of features: of training utterances, of a speaker, of a recording."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightasr.data.cuts import SPEAKERS
from lightasr.errors import LightasrError

LEAST_STD = 1e-3  # what never varies is not blown up


@dataclass(frozen=True)
class Moments:
    """Of each of the numbers in a frame."""

    mean_f: Tensor
    std_f: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, utterances: Iterable[Tensor]) -> Moments:
        """Over all frames of some features (T, F), which need not be in memory together."""
        frames, sum_f, squares_f = 0, torch.zeros(()), torch.zeros(())
        for x_tf in utterances:
            precise_tf = x_tf.double()
            frames += len(x_tf)
            sum_f = sum_f + precise_tf.sum(0)
            squares_f = squares_f + precise_tf.square().sum(0)
        mean_f = sum_f / frames
        variance_f = (squares_f / frames - mean_f.square()).clamp(min=LEAST_STD**2)
        return cls(mean_f.float(), variance_f.sqrt().float())

    def normalize(self, x_tf: Tensor) -> Tensor:
        return (x_tf - self.mean_f) / self.std_f


def read_speakers(features: Path) -> dict[str, Moments]:
    """The moments of each speaker of a folder of features, those of other speeds apart."""
    path = features / SPEAKERS
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {
            speaker: Moments(
                torch.tensor(moments["mean"]), torch.tensor(moments["std"]).clamp(min=LEAST_STD)
            )
            for speaker, moments in tree.items()
        }
    except FileNotFoundError:
        raise LightasrError(
            f"{path}: no such file, but model.normalize: speaker needs it; delete {features} to "
            "have it made again"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LightasrError(
            f"{path}: not the mean and standard deviation of each speaker ({error!r}); delete "
            f"{features} to have it made again"
        ) from None
