"""Stage `neural_lm`: a recurrent language model, trained by the loop that trains recognizers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightasr import schema
from lightasr.lm.neural.corpus import TextBatch, TextCorpus
from lightasr.lm.neural.scoring import TextScore, score_transcripts
from lightasr.models.asr import save_model
from lightasr.models.init import init_xavier
from lightasr.models.language import LanguageModel, sentence_nats
from lightasr.train import loop
from lightasr.train.task import Task


def run(
    config: schema.NeuralLMSlice, inputs: dict[str, Path], out: Path, work: Path
) -> dict[str, Any]:
    """The model, its units and `curves.csv`; the receipt says what it is worth on each part."""
    return loop.run(config, inputs, out, work, LanguageModelling)


@dataclass(frozen=True)
class DevText:
    """How well the dev part's transcripts are foretold."""

    dev_loss: float
    """Nats of a unit."""
    dev_ppl: float
    """Of a word."""
    dev_bpc: float
    """Bits of a character."""

    @property
    def rank(self) -> float:
        return self.dev_bpc

    @property
    def shown(self) -> dict[str, str]:
        return {"ppl": f"{self.dev_ppl:.2f}"}


class LanguageModelling(Task[TextBatch]):
    """A language model, selected by the probability of the dev part's transcripts."""

    stage, section = "neural_lm", "neural_lm.train"
    corpus: TextCorpus
    model: LanguageModel

    def __init__(
        self,
        config: schema.NeuralLMSlice,
        inputs: dict[str, Path],
        title: str,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.corpus = TextCorpus(config, inputs, title)
        self.model = LanguageModel(config.recurrent, len(self.corpus.vocabulary)).to(device)
        if config.train.init == "xavier":
            init_xavier(self.model)

    def forward(self, model: nn.Module, batch: TextBatch) -> Tensor:
        return model(batch.inputs_bt.to(self.device), batch.lengths_b.to(self.device))

    def loss(self, outputs: Tensor, batch: TextBatch) -> Tensor:
        targets_bt, lengths_b = batch.targets_bt.to(self.device), batch.lengths_b.to(self.device)
        return sentence_nats(outputs, targets_bt, lengths_b).sum()

    def validate(self) -> DevText:
        score = self._score(self.config.dev)
        loss = math.log(score.unit_perplexity)
        return DevText(loss, score.perplexity, score.bits_per_character)

    def too_large(self, batch: TextBatch) -> str:
        train = self.config.train
        return (
            f"{len(batch.numbers)} sentences of up to {batch.inputs_bt.shape[1]} units: lower "
            f"neural_lm.train.batch_units ({train.batch_units}) or neural_lm.train.max_units "
            f"({train.max_units})"
        )

    def findings(self) -> dict[str, Any]:
        """What the selected model is worth on each held-out part."""
        parts = {part: asdict(self._score(part)) for part in self.corpus.held_out}
        return {"units": len(self.corpus.vocabulary), "parts": parts}

    def _score(self, part: str) -> TextScore:
        batch_units = self.config.train.batch_units
        return score_transcripts(self.model, self.corpus.held_out[part], batch_units, self.device)

    def write(self, out: Path) -> None:
        save_model(self.model, out / "model.safetensors")
        self.corpus.vocabulary.save(out)
        if self.corpus.tokenizer is not None:
            self.corpus.tokenizer.save(out)
