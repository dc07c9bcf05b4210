"""Luna, Linformer, FNet and MLP-Mixer: their equations, written out in float64, and padding."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightasr.models.frames import Chunks, Frames
from lightasr.models.layers import valid_mask
from lightasr.models.mixers.luna import Luna, over_sight
from lightasr.models.mixers.mhsa import rotary
from lightasr.models.registry import component
from lightasr.schema import MIXERS

DIM = 12
SETTINGS = {
    "luna": {"heads": 3, "tokens": 5, "dropout": 0.0},
    "linformer": {"heads": 3, "slots": 6, "dropout": 0.0},
    "fnet": {},
    "mlp_mixer": {"window": 5, "hidden": 9},
}
CASES = [
    *((name, None) for name in SETTINGS),
    *(("luna", Chunks(4, left)) for left in (0, 2, None)),
]
every_case = pytest.mark.parametrize(("name", "chunks"), CASES, ids=str)
every_chunking = pytest.mark.parametrize(
    "chunks", [Chunks(size, left) for size in (1, 4, 7) for left in (0, 2, None)], ids=str
)


def make(name: str, dim: int = DIM, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    config = MIXERS[name](**(SETTINGS[name] | settings))
    mixer = component("mixer", config)(config, dim)
    for parameter in mixer.parameters():  # biases too, and what starts as the identity
        nn.init.normal_(parameter, std=0.4)
    return mixer


def batch(lengths: list[int], dim: int = DIM) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    x_btd = torch.randn(len(lengths), max(lengths), dim, generator=random)
    return x_btd, valid_mask(torch.tensor(lengths), max(lengths))


def apply(linear: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, linear.weight.double(), linear.bias.double())


def assert_close(ours: Tensor, expected: Tensor, within: float = 1e-5) -> None:
    """Up to `within` of the largest number expected."""
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(ours.double(), expected.double(), atol=within * scale, rtol=0)


@every_case
def test_neither_padding_nor_batch_mates_change_an_output_or_a_gradient(
    name: str, chunks: Chunks | None
) -> None:
    lengths = [13, 1, 21, 8]
    x_btd, valid_bt = batch(lengths)
    rubbish_btd = F.pad(x_btd, (0, 0, 0, 9)).masked_fill(~F.pad(valid_bt, (0, 9))[:, :, None], 1e4)
    one_by_one = [(x_btd[i : i + 1, :n], valid_bt[i : i + 1, :n]) for i, n in enumerate(lengths)]
    results = []
    for parts in (one_by_one, [(rubbish_btd, F.pad(valid_bt, (0, 9)))]):
        mixer, y, gradients_x = make(name).train(), [], []
        for part_btd, part_bt in parts:
            inputs_btd = part_btd.clone().requires_grad_()
            y_btd = mixer(inputs_btd, Frames(part_bt, chunks))
            (y_btd[part_bt].sin().sum() + 0 * y_btd.sum()).backward()
            y.append(y_btd[part_bt])
            gradients_x.append(inputs_btd.grad[part_bt])
            assert not inputs_btd.grad[~part_bt].any()
        gradients = [parameter.grad for parameter in mixer.parameters()]
        results.append([torch.cat(y), torch.cat(gradients_x), *gradients])
    for alone, together in zip(*results, strict=True):
        assert_close(together, alone)


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_stays_finite_even_in_the_padding(
    name: str, chunks: Chunks | None, dtype: torch.dtype
) -> None:
    x_btd, valid_bt = batch([300, 1, 40])
    x_btd = x_btd.masked_fill(~valid_bt[:, :, None], 1e4).requires_grad_()
    mixer = make(name)
    with torch.autocast("cpu", dtype):
        y_btd = mixer(x_btd, Frames(valid_bt, chunks))
    y_btd.float().square().sum().backward()
    assert y_btd.isfinite().all()
    for tensor in (x_btd, *mixer.parameters()):
        assert tensor.grad.isfinite().all()
    expected_btd = mixer(x_btd, Frames(valid_bt, chunks))
    difference = (y_btd - expected_btd)[valid_bt].abs().max() / expected_btd.abs().max()
    assert difference < 0.05


def luna_in_loops(
    mixer: Luna, x_td: Tensor, before: list[Tensor | int], chunks: Chunks
) -> tuple[Tensor, list[Tensor | int]]:
    """Output, and the memory of each chunk: one head, one chunk and one chunk in sight at a time.

    The softmax of a chunk's P' runs over all frames in sight, where a frame is asked by the tokens
    of its own chunk.
    """
    x_chunks = x_td.double().split(chunks.size)
    norm, tokens_ld = mixer.tokens_norm, mixer.tokens_ld.double()
    tokens = [
        F.layer_norm(tokens_ld + memory, (DIM,), norm.weight.double(), norm.bias.double())
        for memory in before
    ]
    parts = [apply(mixer.frame_parts, x_sd).chunk(3, dim=1) for x_sd in x_chunks]
    width = DIM // mixer.heads
    y, after = [], []
    for n, (_, _, queries_sd) in enumerate(parts):
        first = 0 if chunks.left is None else max(0, n - chunks.left)
        packed_heads = []
        for head in range(mixer.heads):
            of_head = slice(head * width, (head + 1) * width)
            scores_ls, values_sc = [], []
            for m in range(first, n + 1):
                asked_lc = apply(mixer.pack_query, tokens[m])[:, of_head]
                scores_ls.append(asked_lc @ parts[m][0][:, of_head].T / math.sqrt(width))
                values_sc.append(parts[m][1][:, of_head])
            packed_heads.append(torch.cat(scores_ls, 1).softmax(1) @ torch.cat(values_sc))
        packed_ld = apply(mixer.pack_out, torch.cat(packed_heads, 1))
        keys_ld, values_ld = apply(mixer.unpack_key_value, packed_ld).chunk(2, dim=1)
        y_heads = []
        for head in range(mixer.heads):
            of_head = slice(head * width, (head + 1) * width)
            scores_sl = queries_sd[:, of_head] @ keys_ld[:, of_head].T / math.sqrt(width)
            y_heads.append(scores_sl.softmax(1) @ values_ld[:, of_head])
        y.append(apply(mixer.out, torch.cat(y_heads, 1)))
        after.append(tokens[n] + packed_ld)
    return torch.cat(y), after


def two_lunas() -> tuple[Luna, Luna]:
    first, second = make("luna"), make("luna")
    with torch.no_grad():
        second.tokens_ld.normal_()
    return first, second


@pytest.mark.parametrize("chunks", [None, Chunks(4, 0), Chunks(4, 2), Chunks(3, None)], ids=str)
def test_luna_is_its_equations_and_the_next_block_reads_the_tokens(chunks: Chunks | None) -> None:
    lengths = [11, 1, 16]
    x_btd, valid_bt = batch(lengths)
    frames = Frames(valid_bt, chunks)
    first, second = two_lunas()
    y_btd = first(x_btd, frames)
    z_btd = second(y_btd, frames)
    for i, n in enumerate(lengths):
        cut = chunks or Chunks(n, 0)
        memory: list[Tensor | int] = [0] * math.ceil(n / cut.size)
        y_td, memory = luna_in_loops(first, x_btd[i, :n], memory, cut)
        assert_close(y_btd[i, :n], y_td)
        z_td, memory = luna_in_loops(second, y_td, memory, cut)
        assert_close(z_btd[i, :n], z_td)
        for ours_ld, expected_ld in zip(frames.memory[i], memory, strict=False):
            assert_close(ours_ld, expected_ld)


def streamed(mixers: tuple[Luna, Luna], x_btd: Tensor, chunks: Chunks) -> tuple[Tensor, list[int]]:
    """The outputs of the second mixer, and how many numbers the states held after each chunk."""
    states, y, sizes = [None, None], [], []
    for y_btd in x_btd.split(chunks.size, dim=1):
        frames = Frames(torch.ones(y_btd.shape[:2], dtype=torch.bool), chunks)
        for i, mixer in enumerate(mixers):
            y_btd, states[i] = mixer.stream(y_btd, frames, states[i])
        y.append(y_btd)
        sizes.append(sum(part.numel() for state in states for part in state))
    return torch.cat(y, 1), sizes


@every_chunking
@torch.no_grad()
def test_luna_streams_what_it_does_in_one_pass_with_a_state_that_stops_growing(
    chunks: Chunks,
) -> None:
    x_btd, valid_bt = batch([38, 38])
    mixers = two_lunas()
    frames = Frames(valid_bt, chunks)
    y_btd = mixers[1](mixers[0](x_btd, frames), frames)
    streamed_btd, sizes = streamed(mixers, x_btd, chunks)
    assert_close(streamed_btd, y_btd, within=1e-4)
    assert sizes[-1] == sizes[2]


@pytest.mark.parametrize("left", [0, 2, None])
def test_luna_weighs_chunks_right_however_far_apart_their_weights_are(left: int | None) -> None:
    """Hundreds of powers of e: float32 would see no weight at all in some sights."""
    logs_bnhl = torch.linspace(-250, 250, 2 * 9 * 2 * 3)[torch.randperm(108)].view(2, 9, 2, 3)
    values_bnhlc = torch.randn(2, 9, 2, 3, 4)
    seen_bnhlc = over_sight((values_bnhlc, logs_bnhl), Chunks(1, left))
    for n in range(9):
        sight = slice(0 if left is None else max(0, n - left), n + 1)
        weights = logs_bnhl[:, sight].double().softmax(1)[..., None]
        assert_close(seen_bnhlc[:, n], (weights * values_bnhlc[:, sight]).sum(1))


@torch.no_grad()
def test_luna_sees_no_chunk_out_of_sight() -> None:
    mixer, chunks = make("luna"), Chunks(4, 1)
    x_btd, valid_bt = batch([16])
    y_btd = mixer(x_btd, Frames(valid_bt, chunks))
    x_btd[:, 4:8] += 1
    changed_t = (mixer(x_btd, Frames(valid_bt, chunks)) != y_btd).any(2)[0]
    assert changed_t.tolist() == [False] * 4 + [True] * 8 + [False] * 4


def linformer_in_loops(mixer: nn.Module, x_td: Tensor) -> Tensor:
    """One utterance, head by head, its frames put into their slots one by one."""
    frames, most = len(x_td), mixer.key_slots.in_features
    slots = min(frames, most)
    members = [[t for t in range(frames) if t * slots // frames == slot] for slot in range(slots)]
    mixes = [mix.weight.double()[:slots, :slots] for mix in (mixer.key_slots, mixer.value_slots)]
    heads = mixer.attention.heads
    q, k, v = (
        part.reshape(1, frames, heads, -1).transpose(1, 2)
        for part in apply(mixer.attention.qkv, x_td.double()).chunk(3, dim=1)
    )
    outputs = []
    for q_tc, k_tc, v_tc in zip(rotary(q)[0], rotary(k)[0], v[0], strict=True):
        keys_kc, values_kc = (
            mix @ torch.stack([part_tc[slot].mean(0) for slot in members])
            for part_tc, mix in zip((k_tc, v_tc), mixes, strict=True)
        )
        outputs.append((q_tc @ keys_kc.T / math.sqrt(q_tc.shape[1])).softmax(1) @ values_kc)
    return apply(mixer.attention.out, torch.cat(outputs, 1))


def test_linformer_attends_to_means_of_equal_parts_mixed_by_the_matrices() -> None:
    lengths = [13, 1, 6, 4, 40]
    mixer = make("linformer")
    x_btd, valid_bt = batch(lengths)
    y_btd = mixer(x_btd, Frames(valid_bt))
    for i, n in enumerate(lengths):
        assert_close(y_btd[i, :n], linformer_in_loops(mixer, x_btd[i, :n]))


def test_linformer_with_a_slot_for_each_frame_starts_as_full_self_attention() -> None:
    config = MIXERS["linformer"](slots=20)
    mixer = component("mixer", config)(config, DIM).eval()
    x_btd, valid_bt = batch([20, 9])
    expected_btd = mixer.attention(x_btd, Frames(valid_bt))
    assert_close(mixer(x_btd, Frames(valid_bt))[valid_bt], expected_btd[valid_bt])


def dft(frames: int) -> Tensor:
    times = torch.arange(frames)
    turns = (times[:, None] * times % frames).double() / frames
    return torch.polar(torch.full_like(turns, frames**-0.5), -2 * math.pi * turns)


@pytest.mark.parametrize("dim", [1, 2, 7, 12])
def test_fnet_is_the_real_part_of_the_transforms_at_the_true_lengths(dim: int) -> None:
    lengths = [1, 2, 3, 4, 13, 97, 128, 600, 997, 1000]
    x_btd, valid_bt = batch(lengths, dim)
    y_btd = make("fnet", dim)(x_btd, Frames(valid_bt))
    for i, n in enumerate(lengths):
        expected_td = (dft(n) @ x_btd[i, :n].to(torch.complex128) @ dft(dim)).real
        torch.testing.assert_close(y_btd[i, :n].double(), expected_td, atol=1e-5, rtol=0)
    assert not y_btd[~valid_bt].any()


def windows_in_loops(mlp: nn.Sequential, x_td: Tensor, borders: list[int]) -> Tensor:
    """The MLP over the frames between two borders, with zeros outside the utterance."""
    y = []
    for start, end in pairwise(borders):
        within = slice(max(0, start), min(end, len(x_td)))
        before, behind = within.start - start, end - within.stop
        x_wd = F.pad(x_td[within], (0, 0, before, behind))
        y_wd = apply(mlp[2], F.gelu(apply(mlp[0], x_wd.T))).T
        y.append(y_wd[before : end - start - behind])
    return torch.cat(y)


@pytest.mark.parametrize(("window", "half"), [(5, 2), (4, 2), (1, 0)])
def test_mlp_mixer_goes_through_aligned_then_shifted_windows(window: int, half: int) -> None:
    lengths = [13, 1, 20, 4]
    mixer = make("mlp_mixer", window=window)
    x_btd, valid_bt = batch(lengths)
    y_btd = mixer(x_btd, Frames(valid_bt))
    for i, n in enumerate(lengths):
        x_td = x_btd[i, :n].double()
        u_td = windows_in_loops(
            mixer.aligned, x_td, [*range(0, n, window), -(-n // window) * window]
        )
        starts = list(range(-half, n, window))
        v_td = windows_in_loops(mixer.shifted, x_td + u_td, [*starts, starts[-1] + window])
        assert_close(y_btd[i, :n], u_td + v_td)
