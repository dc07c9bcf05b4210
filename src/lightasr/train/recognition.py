"""The task of stage `train`: speech recognition with CTC."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lightasr import schema
from lightasr.data.batches import Batch
from lightasr.models.asr import AcousticModel, save_model
from lightasr.models.init import init_xavier
from lightasr.models.pretrained import begin_with, layers_above
from lightasr.objectives.ctc import ctc_loss
from lightasr.train.augment import SpecMasks
from lightasr.train.corpus import TrainingCorpus
from lightasr.train.task import Pace, Task
from lightasr.train.validate import DevResult, validate

Scores = tuple[Tensor, Tensor]
"""Log-probabilities (B, T, V) and their lengths."""
FROZEN = {"none": (), "frontend": ("frontend",), "all": ("frontend", "encoder")}


class Recognition(Task[Batch]):
    """An acoustic model, selected by an error rate of greedy decoding."""

    stage = section = "train"
    corpus: TrainingCorpus
    model: AcousticModel

    def __init__(
        self,
        config: schema.TrainSlice,
        inputs: dict[str, Path],
        title: str,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.corpus = TrainingCorpus(config, inputs)
        self.model = AcousticModel(
            config.model, config.features.dim, len(self.corpus.tokenizer.symbols)
        ).to(device)
        if config.train.init == "xavier":
            init_xavier(self.model)
        if config.finetune is not None:
            begin_with(self.model, inputs["pretrain"])
            self.model.freeze(*FROZEN[config.finetune.frozen])
        self.corpus.set_aside_unfit(self.model, title)
        if config.model.normalize == "global" and config.finetune is None:
            self.model.normalizer.measure(self.corpus.sample())
        self.augment = SpecMasks(config.train.augment)
        self.above = layers_above(self.model)

    def begin_step(self, step: int, done: float) -> None:
        """What learns later is as in evaluation until then, so that its statistics stay, too."""
        if (finetune := self.config.finetune) is not None:
            later = step < finetune.frozen_steps
            self.model.still = FROZEN["all" if later else finetune.frozen]

    def forward(self, model: nn.Module, batch: Batch) -> Scores:
        return model(
            batch.features_btf.to(self.device), batch.lengths_b.to(self.device), self.augment
        )

    def loss(self, outputs: Scores, batch: Batch) -> Tensor:
        logp_btv, lengths_b = outputs
        if not batch.utterances:
            return logp_btv.sum() * 0
        targets = batch.targets_bu.to(self.device), batch.target_lengths_b.to(self.device)
        return ctc_loss(logp_btv, lengths_b, *targets)

    def pace(self, parameter: str) -> Pace:
        """A pretrained layer learns the later and the slower the lower it is; the head at once."""
        config = self.config.finetune
        above = self.above.get(parameter)
        if config is None or above is None:
            return Pace()
        return Pace(config.layer_decay**above, config.frozen_steps)

    def validate(self) -> DevResult:
        return validate(
            self.model,
            self.corpus.dev,
            self.corpus.store,
            self.corpus.tokenizer,
            self.config.train.batch_seconds,
            self.device,
            self.config.train.select,
        )

    def too_large(self, batch: Batch) -> str:
        return self.corpus.too_large(batch, self.section)

    def write(self, out: Path) -> None:
        save_model(self.model, out / "model.safetensors")
        self.corpus.tokenizer.save(out)
