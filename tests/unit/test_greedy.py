"""Greedy decoding equals its definition, written out frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor

from lightasr.decode.greedy import greedy
from lightasr.text.tokenizers import CharTokenizer


def naive(logp_tv: Tensor, length: int) -> list[int]:
    """Best symbol of each frame; one of equal neighbours; no blanks."""
    ids, previous = [], None
    for t in range(length):
        best = int(logp_tv[t].argmax())
        if best != previous and best != 0:
            ids.append(best)
        previous = best
    return ids


def test_greedy_equals_the_naive_decoder() -> None:
    tokenizer = CharTokenizer()
    torch.manual_seed(1)
    for size in (3, 6, 29):  # few symbols: many repeats
        logp_btv = torch.full((32, 40, 29), -20.0)
        logp_btv[..., :size] = torch.randn(32, 40, size).log_softmax(-1)
        lengths_b = torch.randint(0, 41, (32,))
        expected = [
            tokenizer.decode(naive(logp_tv, int(n)))
            for logp_tv, n in zip(logp_btv, lengths_b, strict=True)
        ]
        assert greedy(logp_btv, lengths_b, tokenizer) == expected


def test_frames_past_the_length_are_not_read() -> None:
    logp_btv = torch.full((1, 3, 29), -9.0)
    for frame, symbol in enumerate([3, 4, 5]):
        logp_btv[0, frame, symbol] = 0.0
    assert greedy(logp_btv, torch.tensor([2]), CharTokenizer()) == ["AB"]
    assert greedy(logp_btv, torch.tensor([0]), CharTokenizer()) == [""]
