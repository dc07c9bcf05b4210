"""Convolutional encoders and front ends: the papers' equations over an utterance's own frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from lightasr import schema
from lightasr.models.encoders.convnext import Block
from lightasr.models.encoders.efficientnetv2 import FusedMBConv, MBConv, SqueezeExcite
from lightasr.models.frames import Frames
from lightasr.models.layers import MaskedBatchNorm, subsampled, valid_mask
from lightasr.models.registry import component

INPUTS, DIM = 10, 8
LENGTHS = torch.tensor([23, 1, 12, 30])
ENCODERS = {
    "convnext": {"name": "convnext"},
    "efficientnetv2": {"name": "efficientnetv2"},
    "efficientnetv2-layer": {"name": "efficientnetv2", "norm": "layer"},
    "efficientnetv2-none": {"name": "efficientnetv2", "norm": "none"},
}
each_encoder = pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)


def settings(name: str, **keys: Any) -> Any:
    return schema.ENCODERS[name](**{"dim": DIM, "layers": 3, "dropout": 0.0, **keys})


def encoder_of(keys: dict[str, Any], inputs: int = INPUTS, **more: Any) -> nn.Module:
    """A small encoder, its statistics as after some training."""
    torch.manual_seed(0)
    config = settings(**{**keys, **more})
    made = component("encoder", config)(config, inputs)
    for module in made.modules():
        if isinstance(module, MaskedBatchNorm):
            module.mean.normal_()
            module.var.uniform_(0.5, 2)
    return made


def rubbish_behind(lengths: Tensor, frames: int, channels: int = INPUTS) -> Tensor:
    """Random frames, the same for any `frames`, with 1e4 in the padding."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(len(lengths), int(lengths.max()), channels, generator=random)
    x = F.pad(x, (0, 0, 0, frames - x.shape[1]))
    return x.masked_fill(~valid_mask(lengths, frames)[:, :, None], 1e4)


def outcome(model: nn.Module, x: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Each utterance's outputs, and the gradients of a loss over all of them."""
    model.zero_grad()
    y, y_lengths = model(x, lengths)
    valid = [y[i, :n] for i, n in enumerate(y_lengths.tolist())]
    sum(part.square().sum() for part in valid).div(100).backward()
    return [part.detach() for part in valid], [p.grad.clone() for p in model.parameters()]


def assert_close(ours: list[Tensor], others: list[Tensor]) -> None:
    for a, b in zip(ours, others, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@each_encoder
@pytest.mark.parametrize("training", [True, False])
def test_neither_the_length_of_padding_nor_what_is_in_it_matters(
    encoder: dict[str, Any], training: bool
) -> None:
    model = encoder_of(encoder).train(training)
    short, long = rubbish_behind(LENGTHS, 30), rubbish_behind(LENGTHS, 47)
    clean = short * valid_mask(LENGTHS, 30)[:, :, None]
    outputs, gradients = outcome(model, clean, LENGTHS)
    for x in (short, long):
        other_outputs, other_gradients = outcome(model, x, LENGTHS)
        assert_close(other_outputs, outputs)
        assert_close(other_gradients, gradients)


@each_encoder
def test_batch_mates_matter_to_neither_outputs_nor_gradients(encoder: dict[str, Any]) -> None:
    model = encoder_of(encoder).eval()
    x = rubbish_behind(LENGTHS, 30)
    outputs, gradients = outcome(model, x, LENGTHS)
    alone = [outcome(model, x[i : i + 1, :n], LENGTHS[i : i + 1]) for i, n in enumerate(LENGTHS)]
    assert_close(outputs, [utterance[0] for utterance, _ in alone])
    summed = [torch.stack(parts).sum(0) for parts in zip(*(g for _, g in alone), strict=True)]
    assert_close(gradients, summed)


@each_encoder
def test_infinite_padding_and_bfloat16_leave_outputs_and_gradients_finite(
    encoder: dict[str, Any],
) -> None:
    model = encoder_of(encoder).train()
    x = rubbish_behind(LENGTHS, 30).where(valid_mask(LENGTHS, 30)[:, :, None], float("inf"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = model(x, LENGTHS)
    y.float().square().mean().backward()
    assert y.isfinite().all()
    # An infinite input has no finite product with a zero gradient, unless it is masked before.
    assert all(p.grad.isfinite().all() for p in model.parameters())


@each_encoder
def test_an_encoder_learns_a_tiny_batch_by_heart(encoder: dict[str, Any]) -> None:
    model = nn.ModuleDict({"encoder": encoder_of(encoder, dim=32), "head": nn.Linear(32, 6)})
    random = torch.Generator().manual_seed(2)
    lengths, targets = torch.arange(16, 32, 2), torch.randint(1, 6, (8, 5), generator=random)
    x = rubbish_behind(lengths, 30)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        logp = model["head"](model["encoder"](x, lengths)[0]).log_softmax(-1)
        loss = F.ctc_loss(logp.transpose(0, 1), targets, lengths, torch.full((8,), 5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_a_convnext_block_is_the_papers_with_dilated_filters() -> None:
    torch.manual_seed(0)
    config = settings("convnext", kernel=5)
    block, x = Block(config, dilation=2), torch.randn(1, 11, DIM)
    norm, expand, _, _, contract = block.feedforward
    nn.init.normal_(norm.weight)
    y = F.conv1d(
        F.pad(x.transpose(1, 2), (4, 4)),
        block.depthwise.weight,
        block.depthwise.bias,
        dilation=2,
        groups=DIM,
    ).transpose(1, 2)
    y = F.layer_norm(y, (DIM,), norm.weight, norm.bias)
    y = F.gelu(y @ expand.weight.T + expand.bias) @ contract.weight.T + contract.bias
    frames = Frames(torch.ones(1, 11, dtype=torch.bool))
    torch.testing.assert_close(block(x, frames), x + 0.1 * y)


def test_dilations_take_turns_and_decide_how_far_convnext_sees() -> None:
    model = encoder_of({"name": "convnext"}, layers=4, kernel=3, dilations=(1, 3)).double()
    x = torch.randn(1, 41, INPUTS, dtype=torch.float64, requires_grad=True)
    model(x, torch.tensor([41]))[0][0, 20, 0].backward()
    seen = x.grad[0].abs().sum(-1).nonzero().flatten()
    assert seen.tolist() == list(range(20 - 8, 20 + 8 + 1))  # 1 + 3 + 1 + 3 to either side


@pytest.mark.parametrize("fused", [True, False])
def test_an_mbconv_block_is_the_papers(fused: bool) -> None:
    torch.manual_seed(0)
    config = settings("efficientnetv2", expansion=2, kernel=5, norm="batch")
    block = (FusedMBConv if fused else MBConv)(config).eval()
    for module in block.modules():
        if isinstance(module, MaskedBatchNorm):
            module.mean.normal_()
            module.var.uniform_(0.5, 2)

    def normed(y_bdt: Tensor, part: Any) -> Tensor:
        norm = part.norm.batch
        return F.batch_norm(y_bdt, norm.mean, norm.var, norm.weight, norm.bias)

    def pointwise(y_bdt: Tensor, part: Any) -> Tensor:
        return normed(F.conv1d(y_bdt, part.linear.weight[:, :, None]), part)

    x_btd = torch.randn(1, 11, DIM)
    x_bdt = x_btd.transpose(1, 2)
    frames = Frames(torch.ones(1, 11, dtype=torch.bool))
    if fused:
        y_bit = F.silu(normed(F.conv1d(x_bdt, block.expand.conv.weight, padding=1), block.expand))
    else:
        y_bit, filters = F.silu(pointwise(x_bdt, block.expand)), block.depthwise.conv.weight
        y_bit = F.conv1d(y_bit, filters, padding=2, groups=2 * DIM)
        y_bit = F.silu(normed(y_bit, block.depthwise))
        y_bit = y_bit * block.gated.gate(y_bit.transpose(1, 2), frames)[:, :, None]
    expected_bdt = x_bdt + pointwise(y_bit, block.project)
    torch.testing.assert_close(block(x_btd, frames).transpose(1, 2), expected_bdt)


def test_squeeze_and_excitation_reads_the_mean_of_an_utterances_own_frames() -> None:
    torch.manual_seed(0)
    module, x = SqueezeExcite(INPUTS, 3), rubbish_behind(LENGTHS, 47)
    gates = module.gate(x, Frames(valid_mask(LENGTHS, 47)))
    for i, length in enumerate(LENGTHS.tolist()):
        hidden = F.silu(module.squeeze.weight @ x[i, :length].mean(0) + module.squeeze.bias)
        expected = torch.sigmoid(module.excite.weight @ hidden + module.excite.bias)
        torch.testing.assert_close(gates[i], expected)


def test_squeeze_and_excitation_of_half_precision_sums_in_float32() -> None:
    module, frames = SqueezeExcite(4, 2), Frames(torch.ones(1, 5000, dtype=torch.bool))
    x = torch.full((1, 5000, 4), 100.0)  # their sum is beyond fp16
    expected = module.gate(x, frames)
    torch.testing.assert_close(module.gate(x.half(), frames), expected)


@pytest.mark.parametrize("name", ["convnext", "efficientnetv2"])
def test_an_even_kernel_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="4 is even"):
        schema.ENCODERS[name](kernel=4)


# --- stacking -------------------------------------------------------------------------------------


def stacking(**keys: Any) -> nn.Module:
    torch.manual_seed(0)
    config = schema.FRONTENDS["stacking"](**{"dim": DIM, **keys})
    return component("frontend", config)(config, INPUTS)


@pytest.mark.parametrize("frames", [1, 3, 4])
def test_stacked_frames_stand_side_by_side_and_lacking_ones_are_zeros(frames: int) -> None:
    front, x = stacking(frames=frames), rubbish_behind(LENGTHS, 30)
    y, y_lengths = front(x, LENGTHS)
    assert torch.equal(y_lengths, front.output_lengths(LENGTHS))
    assert torch.equal(y_lengths, subsampled(LENGTHS, frames))
    assert y.shape == (len(LENGTHS), y_lengths.max(), DIM)
    for i, length in enumerate(LENGTHS.tolist()):
        for k in range(0, length, frames):
            group = torch.zeros(frames, INPUTS)
            group[: length - k] = x[i, k : min(k + frames, length)]
            expected = front.norm(front.project(group.flatten()))
            torch.testing.assert_close(y[i, k // frames], expected)
        assert not y[i, y_lengths[i] :].any()


def test_stacking_does_not_see_padding_or_batch_mates() -> None:
    front, x = stacking(), rubbish_behind(LENGTHS, 47)
    outputs, gradients = outcome(front, x, LENGTHS)
    alone = [outcome(front, x[i : i + 1, :n], LENGTHS[i : i + 1]) for i, n in enumerate(LENGTHS)]
    assert_close(outputs, [utterance[0] for utterance, _ in alone])
    summed = [torch.stack(parts).sum(0) for parts in zip(*(g for _, g in alone), strict=True)]
    assert_close(gradients, summed)
