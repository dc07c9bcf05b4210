"""Every component: what an utterance gets depends on that utterance alone."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lightasr import schema
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.models.asr import AcousticModel, Normalizer, load_model, save_model
from lightasr.models.init import init_xavier
from lightasr.models.layers import MaskedBatchNorm, subsampled, valid_mask
from lightasr.models.mixers.mhsa import rotary
from lightasr.models.recurrent.directions import reversed_in_time

MELS, SYMBOLS = 16, 7
UNITS = get_args(schema.ENCODERS["ds2"].model_fields["unit"].annotation)
ENCODERS = [
    *({"name": "ds2", "unit": unit} for unit in UNITS),
    {"name": "ds2", "unit": "ligru", "bidirectional": False},
    {"name": "ds2", "unit": "lstm", "combine": "concat"},
    *({"name": "ds2", "unit": "ligru", "norm": norm} for norm in ("layer", "none")),
    *({"name": "transformer", "mixer": mixer} for mixer in schema.MIXERS),
    *({"name": name} for name in ("convnext", "efficientnetv2")),
    {"name": "conformer", "mixer": "mhsa"},
    {"name": "branchformer", "mixer": "mhsa"},
    {"name": "conformer", "mixer": "mhsa", "streaming": {"chunk": 4, "left": 1, "dynamic": False}},
]


def config(encoder: dict, **model: object) -> schema.Model:
    small = {"dim": 24, "layers": 2, "dropout": 0.0}
    fields = schema.ENCODERS[encoder["name"]].model_fields
    small |= {key: 32 for key in ("feedforward", "gated") if key in fields}
    if "mixer" in encoder:
        mixer = {"name": encoder["mixer"]}
        if "dropout" in schema.MIXERS[mixer["name"]].model_fields:
            mixer["dropout"] = 0.0
        encoder = {**encoder, "mixer": mixer}
    tree = {
        "frontend": {"name": "conv2d", "channels": [4, 4]},
        "head": {"name": "linear", "dropout": 0.0},
        **model,
        "encoder": {**small, **encoder},
    }
    return check(schema.Model, tree, [Layer("test", None, tree)])


def make(encoder: dict, **model: object) -> AcousticModel:
    torch.manual_seed(0)
    made = AcousticModel(config(encoder, **model), MELS, SYMBOLS)
    for module in made.modules():  # statistics as after some training
        if isinstance(module, MaskedBatchNorm):
            module.mean.normal_()
            module.var.uniform_(0.5, 2)
    return made


def batch(lengths: list[int], seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random features, with rubbish where the padding is."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(len(lengths), max(lengths), MELS, generator=random)
    return features, torch.tensor(lengths)


def test_every_encoder_of_the_registry_is_tested_here() -> None:
    assert {encoder["name"] for encoder in ENCODERS} == set(schema.ENCODERS)


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
@pytest.mark.parametrize("normalize", ["global", "speaker", "utterance"])
def test_log_probs_do_not_depend_on_batch_mates(encoder: dict, normalize: str) -> None:
    model = make(encoder, normalize=normalize).eval()
    features, lengths = batch([41, 23, 8, 60])
    together, together_lengths = model(features, lengths)
    for i, length in enumerate(lengths.tolist()):
        alone, alone_length = model(features[i : i + 1, :length], lengths[i : i + 1])
        assert alone_length.item() == together_lengths[i]
        difference = (alone[0] - together[i, : alone_length.item()]).abs().max()
        assert difference < 1e-4


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_training_does_not_see_padding(encoder: dict) -> None:
    """More padding, and other rubbish in it: the same outputs and gradients in train mode."""
    features, lengths = batch([41, 23, 30])
    rubbish = 100 * torch.randn(3, 20, MELS)
    results = []
    for padded in (features, torch.cat([features, rubbish], dim=1)):
        model = make(encoder).train()
        for i, length in enumerate(lengths.tolist()):
            if padded is not features:
                padded[i, length:] = 50.0
        logp, out_lengths = model(padded, lengths)
        valid = valid_mask(out_lengths, logp.shape[1])
        torch.where(valid[:, :, None], logp, 0).square().sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        results.append(([logp[i, :n] for i, n in enumerate(out_lengths)], gradients))
    (logp_a, gradients_a), (logp_b, gradients_b) = results
    for a, b in zip(logp_a, logp_b, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    for name, gradient in gradients_a.items():
        torch.testing.assert_close(gradient, gradients_b[name], atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_a_saved_model_gives_the_same_log_probs(encoder: dict, tmp_path: Path) -> None:
    model = make(encoder).eval()
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(config(encoder), MELS, SYMBOLS, tmp_path / "model.safetensors")
    features, lengths = batch([30, 11])
    assert torch.equal(model(features, lengths)[0], loaded(features, lengths)[0])


def test_weights_of_another_model_are_refused_by_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(make(ENCODERS[0]), path)
    with pytest.raises(LightasrError, match=r"model\.safetensors: not the weights of this model"):
        load_model(config(ENCODERS[1]), MELS, SYMBOLS, path)
    path.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(LightasrError, match=r"model\.safetensors"):
        load_model(config(ENCODERS[0]), MELS, SYMBOLS, path)


def test_output_lengths_are_those_of_the_forward_pass() -> None:
    model = make(ENCODERS[0])
    features, lengths = batch([1, 2, 3, 4, 5, 37, 38])
    assert torch.equal(model.output_lengths(lengths), model(features, lengths)[1])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_reversing_twice_changes_nothing_and_once_starts_at_the_last_frame(
    lengths: list[int],
) -> None:
    x = torch.arange(len(lengths) * max(lengths)).view(len(lengths), -1, 1)
    reversed_once = reversed_in_time(x, torch.tensor(lengths))
    for i, length in enumerate(lengths):
        assert reversed_once[i, :length].tolist() == x[i, :length].flip(0).tolist()
        assert reversed_once[i, length:].tolist() == x[i, length:].tolist()
    assert torch.equal(reversed_in_time(reversed_once, torch.tensor(lengths)), x)


def test_batch_norm_is_torchs_over_the_valid_frames() -> None:
    ours, torchs = MaskedBatchNorm(5, momentum=0.1), nn.BatchNorm1d(5, momentum=0.1)
    x, lengths = torch.randn(3, 9, 5), torch.tensor([9, 4, 6])
    valid = valid_mask(lengths, 9)
    for _ in range(3):
        expected = torchs(x[valid])
        torch.testing.assert_close(ours(x, valid)[valid], expected)
    torch.testing.assert_close(ours.mean, torchs.running_mean)
    torch.testing.assert_close(ours.var, torchs.running_var)
    torch.testing.assert_close(ours.eval()(x, valid)[valid], torchs.eval()(x[valid]))


def test_rotary_products_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    products = rotary(q.expand(1, 1, 12, 8)) @ rotary(k.expand(1, 1, 12, 8)).transpose(-1, -2)
    for distance in range(-5, 6):
        diagonal = products[0, 0].diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=0)


def test_utterance_normalisation_gives_zero_mean_and_unit_variance() -> None:
    features, lengths = batch([30, 12])
    normed = Normalizer("utterance", MELS)(3 * features + 5, lengths)
    for i, length in enumerate(lengths.tolist()):
        valid = normed[i, :length]
        torch.testing.assert_close(valid.mean(0), torch.zeros(MELS), atol=1e-4, rtol=0)
        torch.testing.assert_close(valid.var(0, correction=0), torch.ones(MELS), atol=1e-2, rtol=0)


@pytest.mark.parametrize("kind", ["speaker", "none"])
def test_what_is_normalised_before_or_not_at_all_is_left_as_it_is(kind: str) -> None:
    features, lengths = batch([30, 12])
    assert torch.equal(Normalizer(kind, MELS)(features, lengths), features)


def test_measured_normalisation_is_that_of_all_frames_together() -> None:
    utterances = [torch.randn(n, MELS) * 2 + 1 for n in (30, 7, 19)]
    normalizer = Normalizer("global", MELS)
    normalizer.measure(utterances)
    frames = torch.cat(utterances)
    torch.testing.assert_close(normalizer.mean, frames.mean(0))
    torch.testing.assert_close(normalizer.std, frames.std(0, correction=0))


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_xavier_draws_each_gate_by_what_it_joins(encoder: dict) -> None:
    """N(0, 2 / (inputs + outputs)) for every weight matrix, as in the thesis."""
    torch.manual_seed(0)
    model = AcousticModel(config({**encoder, "dim": 96}), MELS, SYMBOLS)
    before = {name: p.clone() for name, p in model.named_parameters()}
    init_xavier(model)
    inputs = model.frontend.dim
    for name, parameter in model.named_parameters():
        drawn = parameter.dim() > 1 and not name.endswith("tokens_ld")  # which join nothing
        assert torch.equal(parameter, before[name]) != drawn, name
    expected = {
        "lstm": ("units.0.cell.weight_ih_l0", inputs, 96),
        "gru": ("units.0.cell.weight_hh_l0", 96, 96),
        "img": ("units.0.recurrent_gh", 96, 96),
        "parallel_lstm": ("streams.2.units.0.cell.weight_hh_l0", 32, 32),
        "qlstm": ("units.0.input.components_bcoi", inputs, 96),
        "qrnn": ("weights.recurrent.components_bcoi", 96, 96),
        "qligru": ("weights.input.matrices.components_bcoi", inputs, 96),
        "pmu": ("weights.recurrent_dhg", 96, 96),
    }
    if encoder["name"] == "ds2":
        name, fan_in, fan_out = expected.get(encoder["unit"], expected["pmu"])
        weight = model.get_parameter(f"encoder.layers.0.{name}")
    else:
        weight, fan_in, fan_out = model.encoder.project.weight, inputs, 96
    assert weight.std().item() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.05)


@given(st.integers(1, 100), st.integers(1, 4))
def test_subsampled_counts_the_frames_a_stride_touches(frames: int, stride: int) -> None:
    assert subsampled(torch.tensor([frames]), stride).item() == len(range(0, frames, stride))


@pytest.mark.parametrize("name", schema.ENCODERS)
def test_a_weighted_sum_of_layers_does_not_see_batch_mates_and_begins_with_the_mean(
    name: str,
) -> None:
    model = make({"name": name}, head={"name": "layer_sum"}).eval()
    features, lengths = batch([41, 23, 60])
    together, together_lengths = model(features, lengths)
    alone, _ = model(features[1:2, :23], lengths[1:2])
    torch.testing.assert_close(alone[0], together[1, : together_lengths[1]], atol=1e-4, rtol=1e-4)
    x_btd, frame_lengths = model.frontend(model.normalizer(features, lengths), lengths)
    states = list(model.encoder.states(x_btd, frame_lengths))
    assert len(states) == model.encoder.depth
    torch.testing.assert_close(states[-1], model.encoder(x_btd, frame_lengths)[0])
    normed = [torch.nn.functional.layer_norm(state, state.shape[-1:]) for state in states]
    expected = model.head.project(torch.stack(normed).mean(0)).log_softmax(-1)
    torch.testing.assert_close(together, expected)
