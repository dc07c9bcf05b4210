"""HyperMixer, SummaryMixing, Fastformer, convolution and state space: their equations, and padding.

Each is written out in float64, one utterance and one frame after the other.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from lightasr.models.frames import Chunks, Frames
from lightasr.models.layers import valid_mask
from lightasr.models.registry import component
from lightasr.models.selective_scan import selective_scan
from lightasr.schema import MIXERS

DIM, HEADS = 12, 3
SETTINGS = {
    "hypermixer": {"heads": HEADS, "hidden": 5},
    "summarymixing": {"local": 7, "summary": 5},
    "fastformer": {"heads": HEADS},
    "conv": {"kernel": 7},
    "ssm": {"heads": HEADS, "state": 5},
}
STREAMING = [name for name in SETTINGS if MIXERS[name].streams]
CHUNKINGS = [Chunks(size, left) for size in (1, 4, 7) for left in (0, 2, None)]
LONG = Chunks(100, 1)  # several blocks of a state space
CASES = [
    *((name, None) for name in SETTINGS),
    *((name, Chunks(4, left)) for name in STREAMING for left in (0, 2, None)),
]
every_case = pytest.mark.parametrize(("name", "chunks"), CASES, ids=str)
every_chunking = pytest.mark.parametrize("chunks", CHUNKINGS, ids=str)
every_streaming = pytest.mark.parametrize("name", STREAMING)


def make(name: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    config = MIXERS[name](**(SETTINGS[name] | settings))
    return component("mixer", config)(config, DIM)


def batch(lengths: list[int]) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    x_btd = torch.randn(len(lengths), max(lengths), DIM, generator=random)
    return x_btd, valid_mask(torch.tensor(lengths), max(lengths))


def of_one(name: str, frames: int, chunks: Chunks | None = None) -> tuple[Tensor, Tensor, dict]:
    """What a mixer makes of one utterance, and, in float64, the utterance and the weights."""
    mixer = make(name)
    x_btd, valid_bt = batch([frames])
    weights = {key: value.detach().double() for key, value in mixer.named_parameters()}
    return mixer(x_btd, Frames(valid_bt, chunks))[0], x_btd[0].double(), weights


def assert_close(ours: Tensor, expected: Tensor, within: float = 1e-5) -> None:
    """Up to `within` of the largest number expected."""
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(ours.double(), expected.double(), atol=within * scale, rtol=0)


def linear(weights: dict, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


@pytest.mark.parametrize("chunks", [None, *CHUNKINGS], ids=str)
def test_summarymixing_joins_a_frame_with_the_mean_of_those_in_sight(chunks: Chunks | None) -> None:
    ours, x, weights = of_one("summarymixing", 30, chunks)
    sight = torch.ones(30, 30, dtype=torch.bool)
    if chunks is not None:
        sight = chunks.sight(30, x.device)
    f, s = (F.gelu(linear(weights, name, x)) for name in ("local.0", "summary.0"))
    for t in range(30):
        joined = torch.cat([f[t], s[sight[t]].mean(0)])
        expected = linear(weights, "out", F.gelu(linear(weights, "combine", joined)))
        assert_close(ours[t], expected)


def test_hypermixer_is_an_mlp_over_time_with_weights_from_the_frames() -> None:
    frames, width = 9, DIM // HEADS
    ours, x, weights = of_one("hypermixer", frames)
    places = torch.zeros(frames, width)  # each head has all of them
    for time in range(frames):
        for pair in range((width + 1) // 2):
            angle = time * 10000 ** (-pair / ((width + 1) // 2))
            both = torch.tensor([math.sin(angle), math.cos(angle)])
            places[time, 2 * pair : 2 * pair + 2] = both[: width - 2 * pair]
    placed = x + places.repeat(1, HEADS)
    heads = []
    for head in range(HEADS):
        mine = slice(head * width, (head + 1) * width)

        def weights_of_time(part: str, head: int = head, mine: slice = mine) -> Tensor:
            inner = slice(head * 5, (head + 1) * 5)
            first, second = (weights[f"{part}.{i}.weight"][..., 0] for i in (0, 2))
            hidden = F.gelu(placed[:, mine] @ first[mine].T + weights[f"{part}.0.bias"][mine])
            return hidden @ second[inner].T + weights[f"{part}.2.bias"][inner]

        w1, w2 = weights_of_time("into"), weights_of_time("back")
        heads.append(w2 @ F.gelu(w1.T @ x[:, mine] / frames))
    y = torch.cat(heads, dim=1)
    assert_close(ours, F.layer_norm(y, (DIM,), weights["norm.weight"], weights["norm.bias"]))


def test_fastformer_attends_to_one_global_query_and_one_global_key() -> None:
    ours, x, weights = of_one("fastformer", 9)
    width = DIM // HEADS

    def pooled(vectors: list[Tensor], part: str) -> Tensor:
        scores = [linear(weights, part, vector) / math.sqrt(width) for vector in vectors]
        shares = torch.stack(scores).softmax(0).repeat_interleave(width, 1)
        return sum(share * vector for share, vector in zip(shares, vectors, strict=True))

    q, k, v = linear(weights, "qkv", x).split(DIM, dim=1)
    query = pooled(list(q), "query_score")
    key = pooled([query * k_t for k_t in k], "key_score")
    for t in range(9):
        assert_close(ours[t], linear(weights, "out", key * v[t]) + q[t])


@pytest.mark.parametrize("chunks", [None, *CHUNKINGS], ids=str)
def test_conv_is_a_convolution_over_the_frames_in_sight(chunks: Chunks | None) -> None:
    ours, x, weights = of_one("conv", 30, chunks)
    gated = F.glu(linear(weights, "expand", x))
    filters, bias = (weights[f"depthwise.conv.{part}"] for part in ("weight", "bias"))
    for t in range(30):
        seen = gated
        if chunks is not None:
            seen = gated * chunks.sight(30, x.device)[t][:, None]
        y = F.conv1d(seen.T[None], filters, bias, padding=3, groups=DIM)[0, :, t]
        y = F.layer_norm(y, (DIM,), weights["norm.weight"], weights["norm.bias"])
        assert_close(ours[t], linear(weights, "out", F.silu(y)))


@pytest.mark.parametrize("chunks", [None, *CHUNKINGS, LONG, Chunks(30, 2)], ids=str)
@pytest.mark.parametrize("frames", [1, 64, 150, 450])
def test_ssm_is_a_recurrence_in_each_direction(chunks: Chunks | None, frames: int) -> None:
    ours, x, weights = of_one("ssm", frames, chunks)
    x, z, b, c, dt = linear(weights, "project", x).split([DIM, DIM, 5, 5, 2 * HEADS], dim=1)
    dt = F.softplus(dt + weights["dt_bias"])
    decays = (-dt * weights["log_rate"].exp()).exp().reshape(frames, 2, HEADS, 1, 1)
    x = x.reshape(frames, HEADS, -1)
    added = dt.reshape(frames, 2, HEADS, 1, 1) * torch.einsum("ts,thp->thsp", b, x)[:, None]
    nothing = torch.zeros(HEADS, 5, DIM // HEADS, dtype=torch.double)
    past, future = [nothing], [nothing]
    for t in range(frames):
        past.append(decays[t, 0] * past[-1] + added[t, 0])
    for t in reversed(range(frames)):
        if chunks is not None and (t + 1) % chunks.size == 0:
            future[-1] = nothing  # the chunk's last frame knows of none after it
        future.append(decays[t, 1] * future[-1] + added[t, 1])
    seen = torch.stack(past[1:]) + torch.stack(future[-2::-1])
    y = torch.einsum("ts,thsp->thp", c, seen) + weights["skip"][:, None] * x
    y = y.flatten(1) * F.silu(z)
    y = F.rms_norm(y, (DIM,), weights["norm.weight"], torch.finfo(torch.float32).eps)
    assert_close(ours, linear(weights, "out", y))


@pytest.mark.parametrize("strongest", [0.01, 1.0, 1000.0])
def test_a_scan_in_float32_keeps_its_digits_whatever_the_decays(strongest: float) -> None:
    random = torch.Generator().manual_seed(1)
    x, b, c = (torch.randn(1, 300, *shape, generator=random) for shape in ((2, 3), (4,), (4,)))
    dt = torch.rand(1, 300, 4, generator=random).clamp(min=1e-3)
    inputs = x, b, c, dt.log(), -strongest * dt
    exact, exact_state = selective_scan(*(part.double() for part in inputs), 300, None)
    ours, state = selective_scan(*inputs, 300, None)
    assert_close(ours, exact, within=1e-4)
    assert_close(state, exact_state, within=1e-4)


@every_case
@pytest.mark.parametrize("more", [0, 90])
def test_padding_and_batch_mates_change_neither_frames_nor_gradients(
    name: str, chunks: Chunks | None, more: int
) -> None:
    lengths = [13, 1, 24, 70]
    together, valid_bt = batch(lengths)
    x_btd, valid_bt = F.pad(together, (0, 0, 0, more)), F.pad(valid_bt, (0, more))
    x_btd = x_btd.masked_fill(~valid_bt[:, :, None], 1e4).requires_grad_()
    goal_btd = torch.randn(together.shape)
    mixer = make(name)
    y_btd = mixer(x_btd, Frames(valid_bt, chunks))[:, :70]
    (y_btd * goal_btd * valid_bt[:, :70, None]).sum().backward()
    gradients = {key: value.grad.clone() for key, value in mixer.named_parameters()}
    mixer.zero_grad()
    for i, length in enumerate(lengths):
        alone_btd = together[i : i + 1, :length].clone().requires_grad_()
        alone_valid_bt = torch.ones(1, length, dtype=torch.bool)
        alone = mixer(alone_btd, Frames(alone_valid_bt, chunks))[0]
        (alone * goal_btd[i, :length]).sum().backward()
        assert_close(y_btd[i, :length], alone)
        assert_close(x_btd.grad[i, :length], alone_btd.grad[0])
        assert not x_btd.grad[i, length:].any()
    for key, value in mixer.named_parameters():
        assert_close(gradients[key], value.grad)


@every_case
def test_an_utterance_without_frames_has_finite_gradients(name: str, chunks: Chunks | None) -> None:
    mixer = make(name)
    x_btd, valid_bt = batch([5, 9])
    mixer(x_btd, Frames(valid_bt & torch.tensor([[True], [False]]), chunks)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in mixer.parameters())


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_full_precision(
    name: str, chunks: Chunks | None, dtype: torch.dtype
) -> None:
    mixer = make(name)
    x_btd, valid_bt = batch([300, 1])
    frames = Frames(valid_bt, chunks)
    with torch.autocast("cpu", dtype):
        half = mixer(x_btd, frames)
    half.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in mixer.parameters())
    error = (half.float() - mixer(x_btd, frames))[valid_bt]
    assert error.square().mean().sqrt() < 0.05


@every_streaming
@pytest.mark.parametrize("chunks", [*CHUNKINGS, LONG], ids=str)
@torch.no_grad()
def test_chunks_one_by_one_give_what_the_whole_utterance_gives(name: str, chunks: Chunks) -> None:
    mixer = make(name)
    x_btd, valid_bt = batch([247, 247])
    state, parts, sizes = None, [], []
    for part_btd in x_btd.split(chunks.size, dim=1):
        part_valid_bt = torch.ones(part_btd.shape[:2], dtype=torch.bool)
        part, state = mixer.stream(part_btd, Frames(part_valid_bt, chunks), state)
        parts.append(part)
        sizes.append(state.numel())
    assert_close(torch.cat(parts, dim=1), mixer(x_btd, Frames(valid_bt, chunks)))
    assert max(sizes) == max(sizes[:4])  # however long the utterance


@pytest.mark.parametrize("name", SETTINGS)
def test_no_activation_kept_for_training_grows_faster_than_time(name: str) -> None:
    mixer = make(name)

    def kept(frames: int) -> int:
        numbers = []
        x_btd, valid_bt = batch([frames])
        with torch.autograd.graph.saved_tensors_hooks(
            lambda kept: numbers.append(kept.numel()) or kept, lambda kept: kept
        ):
            mixer(x_btd, Frames(valid_bt))
        return sum(numbers)

    small, middle, large = (kept(frames) for frames in (1024, 2048, 4096))
    assert large - middle < 2.2 * (middle - small)


def test_an_even_kernel_has_no_middle() -> None:
    with pytest.raises(ValidationError, match="kernel"):
        MIXERS["conv"](kernel=8)
