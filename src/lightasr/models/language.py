"""The recurrent language model: units -> embedding -> recurrent layers -> log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from lightasr.models.encoders.ds2 import DeepSpeech2
from lightasr.models.layers import valid_mask

if TYPE_CHECKING:
    from lightasr.models.encoders.ds2 import Config


class LanguageModel(nn.Module):
    """(B, T) units of sentences, a start first -> (B, T, V) log-probabilities of what follows."""

    def __init__(self, config: Config, units: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(units, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.recurrent = DeepSpeech2(config, config.dim)
        self.project = nn.Linear(self.recurrent.dim, units)

    def forward(self, units_bt: Tensor, lengths_b: Tensor) -> Tensor:
        x_btd = self.dropout(self.embed(units_bt))
        y_btd, _ = self.recurrent(x_btd, lengths_b)
        logits_btv: Tensor = self.project(y_btd)
        return logits_btv.float().log_softmax(-1)


def sentence_nats(logp_btv: Tensor, targets_bt: Tensor, lengths_b: Tensor) -> Tensor:
    """(B,) nats of each sentence under log-probabilities of its units; padding costs nothing."""
    nats_bt = -logp_btv.gather(2, targets_bt[:, :, None]).squeeze(2)
    return nats_bt.masked_fill(~valid_mask(lengths_b, targets_bt.shape[1]), 0.0).sum(1)
