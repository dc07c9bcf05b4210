"""What a neural language model says of sentences: their probabilities, and its perplexity."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lightasr import schema
from lightasr.data.batches import plan_batches
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.lm.neural.corpus import Transcripts, collate
from lightasr.lm.neural.vocabulary import Vocabulary
from lightasr.lm.units import Units
from lightasr.models.asr import load_weights
from lightasr.models.language import LanguageModel, sentence_nats
from lightasr.text.tokenizers import TOKENS, load_tokenizer


@dataclass(frozen=True)
class TextScore:
    """How well a model foretells the transcripts of a part, ends of sentences included."""

    sentences: int
    words: int
    units: int
    unknown: int
    """Units that the model does not know; they are as likely as `<unk>`."""
    perplexity: float
    """Of a word, whatever the units."""
    unit_perplexity: float
    bits_per_character: float
    """Spaces and ends of sentences included."""


@torch.no_grad()
def score_sentences(
    model: LanguageModel, sentences: Sequence[Sequence[int]], batch_units: int, device: torch.device
) -> NDArray[np.float64]:
    """Nats of each sentence."""
    model.eval()
    nats = np.zeros(len(sentences))
    for part in plan_batches([len(sentence) + 1 for sentence in sentences], batch_units):
        batch = collate([sentences[i] for i in part])
        lengths_b = batch.lengths_b.to(device)
        logp_btv = model(batch.inputs_bt.to(device), lengths_b)
        nats[part] = sentence_nats(logp_btv, batch.targets_bt.to(device), lengths_b).cpu().numpy()
    return nats


def score_transcripts(
    model: LanguageModel, part: Transcripts, batch_units: int, device: torch.device
) -> TextScore:
    nats = float(score_sentences(model, part.sentences, batch_units, device).sum())
    count, units = len(part.sentences), part.units
    return TextScore(
        sentences=count,
        words=part.words,
        units=units,
        unknown=part.unknown,
        perplexity=_exp(nats / (part.words + count)),
        unit_perplexity=_exp(nats / (units + count)),
        bits_per_character=nats / math.log(2) / part.characters,
    )


def _exp(nats: float) -> float:
    """A perplexity, also of a model that has learnt nothing yet."""
    return math.exp(nats) if nats < math.log(1e300) else math.inf


@dataclass(frozen=True)
class TrainedLanguageModel:
    """A finished model, for use."""

    config: schema.NeuralLMSlice
    model: LanguageModel
    vocabulary: Vocabulary
    units: Units
    device: torch.device

    def log_probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Natural logarithm of the probability of each text as a whole sentence."""
        sentences = [self.vocabulary.encode(self.units.split_with_unknown(text)) for text in texts]
        batch_units = self.config.train.batch_units
        return -score_sentences(self.model, sentences, batch_units, self.device)


def load_language_model(folder: Path) -> TrainedLanguageModel:
    """Load `data/neural_lm/<label>-<key>/`."""
    path = folder / "config.json"
    try:
        tree = json.loads(path.read_text())
    except FileNotFoundError:
        raise LightasrError(
            f"{folder}: no finished language model (it has no {path.name})"
        ) from None
    config = check(schema.NeuralLMSlice, tree, [Layer(str(path), None, tree)])
    tokenizer = load_tokenizer(folder) if (folder / TOKENS).exists() else None
    vocabulary = Vocabulary.load(folder)
    model = LanguageModel(config.recurrent, len(vocabulary))
    load_weights(model, folder / "model.safetensors")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    units = Units(config.text, tokenizer)
    return TrainedLanguageModel(config, model.to(device).eval(), vocabulary, units, device)
