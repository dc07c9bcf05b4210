"""Greedy decoding: the best symbol of each frame, repeats and blanks taken out."""

from __future__ import annotations

import torch
from torch import Tensor

from lightasr.text.tokenizers import Tokenizer


def greedy(logp_btv: Tensor, lengths_b: Tensor, tokenizer: Tokenizer) -> list[str]:
    """The text of each utterance of a batch."""
    best_bt = logp_btv.argmax(dim=-1)
    frames = torch.arange(best_bt.shape[1], device=best_bt.device)
    starts_bt = torch.ones_like(best_bt, dtype=torch.bool)
    starts_bt[:, 1:] = best_bt[:, 1:] != best_bt[:, :-1]
    valid_bt = frames < lengths_b.to(best_bt.device)[:, None]
    kept_bt = (starts_bt & valid_bt & (best_bt != tokenizer.blank)).cpu()
    best_bt = best_bt.cpu()
    return [
        tokenizer.decode(best_t[kept_t].tolist())
        for best_t, kept_t in zip(best_bt, kept_bt, strict=True)
    ]
