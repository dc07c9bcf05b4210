"""A finished training run, loaded from its directory alone: model, tokenizer, features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightasr import schema
from lightasr.data.batches import FeatureStore, Utterance, plan_batches
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.models.asr import AcousticModel, load_model
from lightasr.text.tokenizers import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Trained:
    """What a training run leaves for use."""

    config: schema.TrainSlice
    model: AcousticModel
    tokenizer: Tokenizer
    device: torch.device

    @property
    def by_speaker(self) -> bool:
        """Whether features are normalised by speaker before the model reads them."""
        return self.config.model.normalize == "speaker"

    @torch.no_grad()
    def log_probs(self, features_btf: Tensor, lengths_b: Tensor) -> tuple[Tensor, Tensor]:
        logp_btv, lengths_b = self.model(features_btf.to(self.device), lengths_b.to(self.device))
        return logp_btv.cpu(), lengths_b.cpu()

    def score_utterances(
        self, utterances: list[Utterance], batch_seconds: float
    ) -> Iterator[tuple[Utterance, Tensor]]:
        """Log-probabilities (T, V) of each utterance, shortest first."""
        store = FeatureStore(by_speaker=self.by_speaker)
        batches = plan_batches([utterance.seconds for utterance in utterances], batch_seconds)
        for batch in store.stream(utterances, batches):
            logp_btv, lengths_b = self.log_probs(batch.features_btf, batch.lengths_b)
            for utterance, logp_tv, length in zip(
                batch.utterances, logp_btv, lengths_b.tolist(), strict=True
            ):
                yield utterance, logp_tv[:length]


def load_trained(directory: Path) -> Trained:
    """Load `results/train/<label>-<key>/`."""
    if not (directory / "run.json").exists():
        raise LightasrError(f"{directory}: no finished training run (it has no run.json)")
    tree = json.loads((directory / "config.json").read_text())
    config = check(schema.TrainSlice, tree, [Layer(f"{directory}/config.json", None, tree)])
    tokenizer = load_tokenizer(directory)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(
        config.model,
        config.features.dim,
        len(tokenizer.symbols),
        directory / "model.safetensors",
    )
    return Trained(config, model.to(device), tokenizer, device)
