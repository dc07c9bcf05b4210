"""Encoders in chunks: the stream gives what the whole utterance gives, from a small state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightasr import schema
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.models.blocks import Blocks, extremes
from lightasr.models.frames import Chunks
from lightasr.models.registry import component

INPUTS, DIM = 10, 12
STREAMING = [name for name, config in schema.MIXERS.items() if config.streams]
WHOLE = [name for name in schema.MIXERS if name not in STREAMING]
STACKS = {"transformer": 1, "conformer": 2, "branchformer": 1}
"""Encoders of blocks, and how many parts of a block, one after the other, look back."""


def make(stack: str, mixer: str, **streaming: Any) -> Blocks:
    tree = {"name": stack, "mixer": mixer, "dim": DIM, "layers": 2, "streaming": streaming}
    tree = {"encoder": schema.spelt_out(tree)}
    config = check(schema.Model, tree, [Layer("test", None, tree)]).encoder
    torch.manual_seed(1)
    made = component("encoder", config)(config, INPUTS)
    assert isinstance(made, Blocks)
    return made.eval()


def streamed(model: Blocks, x_btd: Tensor, size: int) -> tuple[Tensor, Any]:
    state, parts = None, []
    for chunk_btd in x_btd.split(size, dim=1):
        part, state = model.stream(chunk_btd, state)
        parts.append(part)
    return torch.cat(parts, dim=1), state


def numbers(state: Any) -> int:
    """How many a state holds."""
    if isinstance(state, Tensor):
        return state.numel()
    parts = state.values() if isinstance(state, dict) else state if state is not None else ()
    return sum(map(numbers, parts)) if not isinstance(state, int | float | str) else 1


@pytest.mark.parametrize("mixer", STREAMING)
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(("chunk", "left"), [(4, 0), (7, 2), (3, None)])
@torch.no_grad()
def test_a_stream_gives_what_the_whole_utterance_gives(
    stack: str, mixer: str, chunk: int, left: int | None
) -> None:
    model = make(stack, mixer, chunk=chunk, left=left)
    for frames in (1, 6, 29):
        x_btd = torch.randn(2, frames, INPUTS)
        whole, _ = model(x_btd, torch.tensor([frames, frames]))
        parts, _ = streamed(model, x_btd, chunk)
        torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mixer", STREAMING)
@torch.no_grad()
def test_a_state_does_not_grow_with_the_utterance(mixer: str) -> None:
    model = make("conformer", mixer, chunk=4, left=3)
    sizes = [numbers(streamed(model, torch.randn(1, n, INPUTS), 4)[1]) for n in (80, 400)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("mixer", [name for name in STREAMING if name != "ssm"])
@pytest.mark.parametrize("stack", STACKS)
def test_a_frame_sees_its_chunk_and_as_many_before_it_as_the_config_says(
    stack: str, mixer: str
) -> None:
    """Through two layers twice as many; an SSM's state has seen them all."""
    chunk, left, frames = 3, 2, 60
    model = make(stack, mixer, chunk=chunk, left=left)
    x_btd = torch.randn(1, frames, INPUTS, requires_grad=True)
    y_btd, _ = model(x_btd, torch.tensor([frames]))
    y_btd[0, 53].square().sum().backward()
    assert x_btd.grad is not None
    seen = x_btd.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    own, back = 53 // chunk, 2 * STACKS[stack] * left
    assert set(seen) <= set(range((own - back) * chunk, (own + 1) * chunk))
    assert {*range(own * chunk, (own + 1) * chunk)} <= set(seen)


@pytest.mark.parametrize("mixer", WHOLE)
def test_a_mixer_that_needs_the_whole_is_refused_by_name(mixer: str) -> None:
    with pytest.raises(LightasrError, match=f"mixer '{mixer}' needs the whole utterance") as found:
        make("transformer", mixer, chunk=4)
    assert all(name in str(found.value) for name in STREAMING)


def test_training_draws_what_frames_see() -> None:
    model = make("transformer", "mhsa", chunk=8, left=2).train()
    torch.manual_seed(1)
    drawn = [model.chunks() for _ in range(400)]
    assert 0.4 < drawn.count(None) / len(drawn) < 0.6
    sizes = {chunks.size for chunks in drawn if chunks}
    assert min(sizes) == 4
    assert max(sizes) == 16
    assert all(chunks.size * chunks.left >= 16 for chunks in drawn if chunks and chunks.left)
    fixed = make("transformer", "mhsa", chunk=8, left=2, dynamic=False).train()
    assert {fixed.chunks() for _ in range(10)} == {model.eval().chunks()}


def test_the_worst_batch_is_rehearsed_whole_and_in_the_smallest_chunks() -> None:
    model = make("transformer", "luna", chunk=8, left=3).train()
    assert [model.chunks() for _ in extremes(model)] == [None, Chunks(4, 6)]
    assert len({model.chunks() for _ in range(20)}) > 2, "after that they are drawn again"
    fixed = make("transformer", "luna", chunk=8, left=3, dynamic=False).train()
    assert [fixed.chunks() for _ in extremes(fixed)] == [Chunks(8, 3)]


def test_an_encoder_of_whole_utterances_says_how_to_train_one_that_streams() -> None:
    config = schema.ENCODERS["transformer"](dim=DIM)
    model = component("encoder", config)(config, INPUTS)
    with pytest.raises(LightasrError, match=r"train it with `streaming: \{chunk: 16\}`"):
        model.stream(torch.randn(1, 4, INPUTS), None)


def test_every_stack_is_tested_here() -> None:
    stacks = {name for name, config in schema.ENCODERS.items() if "mixer" in config.model_fields}
    assert stacks == set(STACKS)
