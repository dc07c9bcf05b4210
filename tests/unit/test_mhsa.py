"""Self-attention is torch's, over the frames in sight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightasr.models.frames import Chunks, Frames
from lightasr.models.layers import valid_mask
from lightasr.models.mixers import mhsa

DIM, HEADS = 12, 3


def torchs(ours: mhsa.SelfAttention) -> nn.MultiheadAttention:
    """torch's module with our weights."""
    module = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    module.in_proj_weight.data.copy_(ours.qkv.weight)
    module.in_proj_bias.data.copy_(ours.qkv.bias)
    module.out_proj.load_state_dict(ours.out.state_dict())
    return module


@pytest.mark.parametrize("chunks", [None, Chunks(4, 0), Chunks(3, 2), Chunks(5, None)], ids=str)
def test_without_positions_it_is_torchs(
    chunks: Chunks | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_positions(x_bhtd: Tensor, first: int = 0) -> Tensor:
        return x_bhtd

    monkeypatch.setattr(mhsa, "rotary", without_positions)
    torch.manual_seed(1)
    ours = mhsa.SelfAttention(mhsa.Config(heads=HEADS, dropout=0.0), DIM)
    x_btd, valid_bt = torch.randn(3, 17, DIM), valid_mask(torch.tensor([17, 9, 1]), 17)
    hidden_tt = None if chunks is None else ~chunks.sight(17, x_btd.device)
    expected, _ = torchs(ours)(
        x_btd, x_btd, x_btd, key_padding_mask=~valid_bt, attn_mask=hidden_tt, need_weights=False
    )
    found = ours(x_btd, Frames(valid_bt, chunks))
    torch.testing.assert_close(found[valid_bt], expected[valid_bt])
