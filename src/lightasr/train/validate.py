"""How a model does on the dev part while it is trained: loss and greedy error rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jiwer
import torch

from lightasr.data.batches import FeatureStore, Utterance, plan_batches
from lightasr.decode.greedy import greedy
from lightasr.models.asr import AcousticModel
from lightasr.objectives.ctc import ctc_loss
from lightasr.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class DevResult:
    """Loss in nats per symbol, error rates as fractions."""

    dev_loss: float
    dev_wer: float
    dev_cer: float

    @property
    def rank(self) -> float:
        """The word error rate selects the weights."""
        return self.dev_wer

    @property
    def shown(self) -> dict[str, str]:
        return {"WER": f"{self.dev_wer:.1%}"}


class DevResultByLetters(DevResult):
    """The same, where hardly a word is right."""

    @property
    def rank(self) -> float:
        """The character error rate selects the weights."""
        return self.dev_cer

    @property
    def shown(self) -> dict[str, str]:
        return {"CER": f"{self.dev_cer:.1%}"}


RESULTS = {"wer": DevResult, "cer": DevResultByLetters}


@torch.no_grad()
def validate(
    model: AcousticModel,
    utterances: list[Utterance],
    store: FeatureStore,
    tokenizer: Tokenizer,
    batch_seconds: float,
    device: torch.device,
    select: Literal["wer", "cer"] = "wer",
) -> DevResult:
    """Greedy decoding of `utterances` as the model stands; the loss is of those that have one."""
    model.eval()
    batches = plan_batches([utterance.seconds for utterance in utterances], batch_seconds)
    references: list[str] = []
    hypotheses: list[str] = []
    loss = symbols = 0.0
    for batch in store.stream(utterances, batches):
        logp_btv, lengths_b = model(batch.features_btf.to(device), batch.lengths_b.to(device))
        fit = [
            i
            for i, (utterance, outputs) in enumerate(
                zip(batch.utterances, lengths_b.tolist(), strict=True)
            )
            if utterance.unfit(outputs) is None
        ]
        if fit:
            targets = batch.targets_bu[fit].to(device), batch.target_lengths_b[fit].to(device)
            loss += ctc_loss(logp_btv[fit], lengths_b[fit], *targets).item()
            symbols += float(batch.target_lengths_b[fit].sum())
        references += [utterance.text for utterance in batch.utterances]
        hypotheses += greedy(logp_btv, lengths_b, tokenizer)
    return RESULTS[select](
        loss / symbols, jiwer.wer(references, hypotheses), jiwer.cer(references, hypotheses)
    )
