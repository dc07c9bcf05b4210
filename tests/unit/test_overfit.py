"""Every encoder learns a few utterances by heart: gradients reach all that it needs."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from lightasr import schema
from lightasr.models.asr import AcousticModel

MELS, SYMBOLS = 16, 6
LENGTHS = (40, 52, 61, 48, 80, 37, 70, 64)
ENCODERS = [
    *({"name": "transformer", "mixer": mixer} for mixer in schema.MIXERS),
    *({"name": name} for name in schema.ENCODERS if name != "transformer"),
]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: "-".join(encoder.values()))
def test_eight_utterances_are_learnt_by_heart(encoder: dict[str, str]) -> None:
    torch.manual_seed(1)
    tree = {
        "frontend": {"name": "conv2d", "channels": [4, 8]},
        "encoder": {**schema.spelt_out(encoder), "dim": 32},
    }
    config = schema.Model.model_validate_json(json.dumps(schema.with_names(tree, schema.Model)))
    model = AcousticModel(config, MELS, SYMBOLS)
    features = torch.randn(len(LENGTHS), max(LENGTHS), MELS)
    lengths = torch.tensor(LENGTHS)
    texts = torch.randint(1, SYMBOLS, (len(LENGTHS), 5))
    spoken = torch.full((len(LENGTHS),), 5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0)
    loss = torch.tensor(torch.inf)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 4e-3 * min(1, (step + 1) / 10)
        logp, frames = model(features, lengths)
        loss = F.ctc_loss(logp.transpose(0, 1), texts, frames, spoken, zero_infinity=True)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if loss.item() < 0.02:
            return
    pytest.fail(f"the loss is still {loss.item():.3f} nats a symbol")
