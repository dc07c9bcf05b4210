"""The units of `ds2`: their equations, true lengths, streaming, dropout, sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightasr import schema
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check
from lightasr.kernels import reference
from lightasr.models.asr import AcousticModel
from lightasr.models.encoders.ds2 import DeepSpeech2
from lightasr.models.layers import MaskedBatchNorm, valid_mask
from lightasr.models.recurrent.quaternion import QuaternionMatrices, hamilton_matrix
from lightasr.models.recurrent.scanned import ScannedLayer
from lightasr.plan import load_plan

ROOT = Path(__file__).parents[2]
CONFIG = schema.ENCODERS["ds2"]
UNITS = get_args(CONFIG.model_fields["unit"].annotation)
INPUTS, DIM = 20, 12
LENGTHS = torch.tensor([9, 2, 1, 6])
SCANS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "ligru": (reference.ligru_scan, 2),
    "sligru": (reference.sligru_scan, 2),
    "mgu": (reference.mgu_scan, 2),
    "rnn": (reference.rnn_scan, 1),
}

each_unit = pytest.mark.parametrize("unit", UNITS)


def encoder(unit: str, **keys: Any) -> DeepSpeech2:
    """A small encoder in float64, its statistics and initial states as after some training."""
    torch.manual_seed(0)
    small = {"dim": DIM, "layers": 2, "dropout": 0.0, "kernel": "reference"}
    made = DeepSpeech2(CONFIG(unit=unit, **{**small, **keys}), INPUTS).double()
    for module in made.modules():
        if isinstance(module, MaskedBatchNorm):
            module.mean.normal_()
            module.var.uniform_(0.5, 2)
    for name, parameter in made.named_parameters():
        if "initial" in name:
            nn.init.normal_(parameter)
    return made


def inputs(lengths: Tensor = LENGTHS) -> Tensor:
    """Random frames, with large rubbish where the padding is."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(len(lengths), int(lengths.max()), INPUTS, generator=random, dtype=torch.float64)
    return torch.where(valid_mask(lengths, x.shape[1])[:, :, None], x, 50 * x)


# --- the scans ------------------------------------------------------------------------------------


def scan_arguments(gates: int, frames: int = 4) -> list[Tensor]:
    torch.manual_seed(3)
    shapes = ((frames, 2, 2, gates * 3), (2, 3, gates * 3), (2, 2, 3), (2, 2, 3))
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("cell", SCANS)
def test_a_scan_passes_gradcheck(cell: str) -> None:
    scan, gates = SCANS[cell]
    arguments = scan_arguments(gates)
    assert torch.autograd.gradcheck(scan, arguments)
    assert torch.autograd.gradcheck(scan, arguments[:3])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_simple_recurrence_passes_gradcheck_with_every_activation(activation: str) -> None:
    assert torch.autograd.gradcheck(
        lambda *tensors: reference.rnn_scan(*tensors, activation=activation), scan_arguments(1)
    )


def step(cell: str, gates: Tensor, h: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """The next state of one sequence, as the equations of a cell have it."""
    size = len(h)
    if cell == "rnn":
        return (gates + h @ weight).clamp(0, 20) * mask
    if cell == "mgu":
        f = torch.sigmoid(gates[:size] + h @ weight[:, :size])
        c = torch.tanh(gates[size:] + (f * h) @ weight[:, size:]) * mask
        return (1 - f) * h + f * c
    product = h @ weight
    if cell == "sligru":
        product = (product - product.mean()) / (product.var(correction=0) + 1e-5).sqrt()
    a, z = (gates + product).chunk(2)
    z = z.sigmoid()
    return z * h + (1 - z) * a.relu() * mask


@pytest.mark.parametrize("cell", SCANS)
def test_a_scan_is_its_equation(cell: str) -> None:
    scan, size = SCANS[cell]
    gates, weight, state, mask = scan_arguments(size, frames=6)
    states = scan(gates, weight, state, mask)
    for direction in range(2):
        for row in range(2):
            h = state[direction, row]
            for t in range(6):
                one = (gates[t, direction, row], h, weight[direction], mask[direction, row])
                h = step(cell, *one)
                torch.testing.assert_close(states[t, direction, row], h)


def test_the_clipped_activation_stays_between_0_and_20() -> None:
    gates = torch.tensor([-5.0, 3.0, 50.0]).view(3, 1, 1, 1)
    states = reference.rnn_scan(gates, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    assert states.flatten().tolist() == [0.0, 3.0, 20.0]


def test_over_3000_frames_sligru_stays_bounded_where_ligru_grows(
    record_property: Callable[[str, object], None],
) -> None:
    torch.manual_seed(0)
    frames, size = 3000, 64
    gates, h0 = torch.randn(frames, 1, 4, 2 * size), torch.zeros(1, 4, size)
    weight = torch.cat([nn.init.orthogonal_(torch.empty(size, size)) for _ in "az"], dim=1)[None]
    largest = {
        cell: SCANS[cell][0](gates, 2 * weight, h0).max().item() for cell in ("ligru", "sligru")
    }
    record_property("largest_state_after_3000_frames", largest)
    assert largest["sligru"] <= gates.max() + math.sqrt(2 * size)  # as far as a norm's output goes
    assert not largest["ligru"] <= 100 * largest["sligru"]


# --- lengths and batch mates ----------------------------------------------------------------------


@each_unit
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_an_utterance_alone_has_the_states_it_has_in_a_batch(unit: str, norm: str) -> None:
    model = encoder(unit, norm=norm, initial="learnt", combine="concat", projection=8).eval()
    together, lengths = model(inputs(), LENGTHS)
    assert lengths is LENGTHS
    assert together.shape == (4, 9, 8)
    for i, length in enumerate(LENGTHS.tolist()):
        alone, _ = model(inputs()[i : i + 1, :length], LENGTHS[i : i + 1])
        torch.testing.assert_close(alone[0], together[i, :length])


@each_unit
def test_gradients_of_a_batch_are_the_sum_of_those_of_its_utterances(unit: str) -> None:
    model = encoder(unit, initial="learnt").eval()
    batches = [(inputs(), LENGTHS)]
    batches.append((torch.cat([inputs(), 99 + torch.zeros(4, 30, INPUTS)], dim=1), LENGTHS))
    alone = [(inputs()[i : i + 1, :n], LENGTHS[i : i + 1]) for i, n in enumerate(LENGTHS)]
    expected = gradients(model, alone)
    for batch in batches:
        for name, gradient in gradients(model, [batch]).items():
            torch.testing.assert_close(gradient, expected[name], msg=name)


def gradients(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Of the squared states of all valid frames, by parameter."""
    model.zero_grad()
    for x, lengths in batches:
        y, _ = model(x, lengths)
        y[valid_mask(lengths, y.shape[1])].square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@each_unit
def test_the_backward_direction_starts_at_the_last_valid_frame(unit: str) -> None:
    """The last state of an utterance has not seen its earlier frames but by the forward half."""
    model = encoder(unit, layers=1, combine="concat", norm="none").eval()
    x, changed = inputs(), inputs()
    changed[:, 0] += 1
    last = LENGTHS - 1
    rows = torch.arange(3) if unit.startswith("q") else torch.arange(4)
    y, y_changed = (model(each, LENGTHS)[0][rows, last[rows]] for each in (x, changed))
    parts = model.parts
    halves = [each.unflatten(-1, (parts, 2, -1)).select(-2, 1) for each in (y, y_changed)]
    longer = last[rows] > 0
    assert torch.equal(halves[0][longer], halves[1][longer])


@each_unit
def test_one_frame_is_enough(unit: str) -> None:
    model = encoder(unit).train()
    one = torch.tensor([1, 1])
    y, _ = model(inputs()[:2, :1], one)
    y.sum().backward()
    assert y.shape == (2, 1, DIM)
    assert y.isfinite().all()


@each_unit
@pytest.mark.parametrize("initial", ["zero", "learnt"])
def test_in_bf16_states_stay_near_those_of_fp32(unit: str, initial: str) -> None:
    model = encoder(unit, norm="none", initial=initial).float()
    x = torch.where(valid_mask(LENGTHS, 9)[:, :, None], inputs(), 0).float()
    expected, _ = model(x, LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, _ = model(x, LENGTHS)
    torch.testing.assert_close(states.float(), expected, atol=0.15, rtol=0.1)


@pytest.mark.parametrize(("unit", "peer"), [("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_lstm_and_gru_are_torchs_over_packed_sequences(unit: str, peer: type[nn.RNNBase]) -> None:
    ours = encoder(unit, norm="none", combine="concat")
    theirs = peer(INPUTS, DIM, 2, batch_first=True, bidirectional=True).double()
    for layer, module in enumerate(ours.layers):
        for one, suffix in zip(module.units, ("", "_reverse"), strict=True):
            for name, weight in one.cell.named_parameters():
                theirs.get_parameter(f"{name[:-1]}{layer}{suffix}").data.copy_(weight)
    packed = pack_padded_sequence(inputs(), LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    valid = valid_mask(LENGTHS, 9)
    states, _ = ours(inputs(), LENGTHS)
    torch.testing.assert_close(states[valid], expected[valid])
    states[valid].square().sum().backward()
    expected[valid].square().sum().backward()
    for layer, module in enumerate(ours.layers):
        gradient = theirs.get_parameter(f"weight_hh_l{layer}_reverse").grad
        torch.testing.assert_close(module.units[1].cell.weight_hh_l0.grad, gradient)


# --- the equations of the other units -------------------------------------------------------------


def test_pmu_is_an_mgu_whose_gate_reads_its_own_neuron_alone() -> None:
    layer = encoder("pmu", layers=1, bidirectional=False, norm="none").layers[0]
    nn.init.normal_(layer.weights.diagonals[0])
    x, h = inputs()[:1], torch.zeros(DIM, dtype=torch.float64)
    states = layer(x, LENGTHS[:1])[0][0]
    for t, gates in enumerate(layer.weights.input(x)[0]):
        f = torch.sigmoid(gates[:DIM] + layer.weights.diagonals[0] * h)
        c = torch.tanh(gates[DIM:] + (f * h) @ layer.weights.recurrent_dhg[0])
        h = (1 - f) * h + f * c
        torch.testing.assert_close(states[t], h)


def test_img_is_a_leaky_unit_whose_gate_works_inside_the_candidate_too() -> None:
    layer = encoder("img", layers=1, bidirectional=False, norm="none").layers[0]
    x, h = inputs()[:1], torch.zeros(DIM, dtype=torch.float64)
    states = layer(x, LENGTHS[:1])[0][0]
    for t, gates in enumerate(layer.units[0].input(x)[0]):
        product = layer.units[0].recurrent_gh @ h
        z = torch.sigmoid(gates[:DIM] + product[:DIM])
        h = z * h + (1 - z) * torch.tanh(gates[DIM:] + z * product[DIM:])
        torch.testing.assert_close(states[t], h)


def test_a_parallel_lstm_reads_each_stream_apart() -> None:
    model = encoder("parallel_lstm", combine="concat", norm="none").eval()
    x, changed = inputs(), inputs()
    changed[:, :, :7] += 1  # the first of 7 + 7 + 6 numbers
    y, y_changed = (model(each, LENGTHS)[0] for each in (x, changed))
    stream = 2 * DIM // 3
    assert torch.equal(y[..., stream:], y_changed[..., stream:])
    assert not torch.isclose(y[..., :stream], y_changed[..., :stream]).all()


def hamilton(p: Tensor, q: Tensor) -> Tensor:
    """The product of two quaternions, by hand."""
    a, b, c, d = p
    e, f, g, h = q
    return torch.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ]
    )


def test_the_block_matrix_gives_hamilton_products() -> None:
    weights, x = torch.randn(4, 3, 5), torch.randn(4, 5)
    product = (hamilton_matrix(weights) @ x.flatten()).view(4, 3)
    for row in range(3):
        terms = [hamilton(weights[:, row, column], x[:, column]) for column in range(5)]
        torch.testing.assert_close(product[:, row], torch.stack(terms).sum(0))


def test_quaternion_weights_start_with_the_variance_of_the_paper() -> None:
    """phi ~ Chi(4) s has the mean square 4 s^2, and s^2 = 1 / (2 (inputs + outputs))."""
    torch.manual_seed(0)
    components = QuaternionMatrices(1, 4 * 80, 4 * 120).components_bcoi
    squared_norms = components.square().sum(1)
    assert squared_norms.mean().item() == pytest.approx(4 / (2 * 200), rel=0.03)
    for component in components[0]:
        assert component.square().mean().item() > 0.5 / (2 * 200)


def test_orthogonal_quaternion_weights_have_an_orthogonal_block_matrix() -> None:
    matrices = QuaternionMatrices(2, 12, 12, "orthogonal")()
    for matrix in matrices:
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(12), atol=1e-5, rtol=0)


@pytest.mark.parametrize("unit", ["qrnn", "qligru", "qlstm"])
def test_joined_directions_are_quaternions_again(unit: str) -> None:
    """Turning all input quaternions by one factor from the right turns all products so."""
    model = encoder(unit, layers=1, combine="concat", norm="none").eval()
    forward, backward = model.layers[0](inputs(), LENGTHS)
    joined = model.joined([forward, backward]).unflatten(-1, (4, -1))
    expected = [part.unflatten(-1, (4, -1)) for part in (forward, backward)]
    torch.testing.assert_close(joined[..., :3], expected[0])
    torch.testing.assert_close(joined[..., 3:], expected[1])


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"unit": "qlstm", "dim": 130}, r"encoder: 'dim' \(130\) is not divisible by 4"),
        ({"unit": "qrnn", "dim": 8, "projection": 6}, r"'projection' \(6\) is not divisible by 4"),
        ({"unit": "parallel_lstm", "dim": 16}, r"'dim' \(16\) is not divisible by 3"),
    ],
)
def test_a_width_that_does_not_fit_a_unit_is_refused_by_key(
    keys: dict[str, Any], message: str
) -> None:
    tree = {"encoder": {"name": "ds2", **keys}}
    with pytest.raises(LightasrError, match=message):
        check(schema.Model, tree, [Layer("test", None, tree)])


def test_a_frontend_whose_output_is_no_quaternions_is_refused_by_key() -> None:
    with pytest.raises(LightasrError, match=r"model\.frontend\.channels divisible by 4"):
        DeepSpeech2(CONFIG(unit="qligru"), 18)


@each_unit
def test_streaming_gives_the_states_of_the_whole(unit: str) -> None:
    model = encoder(unit, bidirectional=False, initial="learnt", projection=16).float().eval()
    assert model.streams
    x = inputs(torch.tensor([11, 11])).float()
    whole, _ = model(x, torch.tensor([11, 11]))
    state, chunks = None, []
    for chunk in x.split([1, 1, 4, 1, 3, 1], dim=1):
        y, state = model.stream(chunk, state)
        chunks.append(y)
    assert (torch.cat(chunks, dim=1) - whole).abs().max() < 1e-5


def test_an_encoder_that_reads_from_the_end_refuses_to_stream() -> None:
    model = encoder("ligru")
    assert not model.streams
    with pytest.raises(LightasrError, match=r"model\.encoder\.bidirectional"):
        model.stream(inputs(), None)


@each_unit
def test_nothing_of_recurrent_dropout_is_in_a_checkpoint(unit: str) -> None:
    with_dropout, without = (encoder(unit, recurrent_dropout=share) for share in (0.5, 0.0))
    with_dropout.train()(inputs(), LENGTHS)
    sizes = [{k: v.shape for k, v in m.state_dict().items()} for m in (with_dropout, without)]
    assert sizes[0] == sizes[1]


@each_unit
def test_recurrent_dropout_acts_in_training_alone(unit: str) -> None:
    dropped, plain = (
        encoder(unit, recurrent_dropout=share, norm="none", initial="learnt")
        for share in (0.5, 0.0)
    )
    states = [model.eval()(inputs(), LENGTHS)[0] for model in (dropped, plain)]
    assert torch.equal(*states)
    first, second = (dropped.train()(inputs(), LENGTHS)[0] for _ in range(2))
    assert not torch.isclose(first, second).all()


@pytest.mark.parametrize("unit", ["rnn", "ligru", "sligru", "mgu", "pmu", "qrnn", "qligru"])
def test_a_dropped_candidate_is_dropped_in_all_frames_of_its_sequence(unit: str) -> None:
    torch.manual_seed(0)
    layer = encoder(unit, layers=1, bidirectional=False, recurrent_dropout=0.5).train().layers[0]
    frames = torch.full((8,), 30)
    states_bth = layer(inputs(frames), frames)[0]
    silent_bh = (states_bth == 0).all(dim=1)  # a state that starts at zero and gets no candidate
    assert 0.3 < silent_bh.double().mean() < 0.7
    assert len(silent_bh.unique(dim=0)) > 1  # each sequence has its own mask


def test_the_mask_keeps_the_expected_candidate() -> None:
    layer = encoder("ligru", recurrent_dropout=0.25).train().layers[0]
    assert isinstance(layer, ScannedLayer)
    mask = layer.mask(torch.zeros(2, 50, 100))
    assert mask is not None
    torch.testing.assert_close(mask.unique(), torch.tensor([0, 1 / 0.75]))
    assert layer.eval().mask(torch.zeros(2, 50, 100)) is None


@each_unit
@pytest.mark.parametrize("kind", ["orthogonal", "xavier"])
def test_recurrent_weights_start_as_asked(unit: str, kind: str) -> None:
    model = encoder(unit, dim=96, layers=1, bidirectional=False, recurrent_init=kind)
    gates = [gate for gate in recurrent_gates(model.layers[0]) if gate.shape[0] == gate.shape[1]]
    assert gates
    for gate in gates:
        product = gate @ gate.T
        error = (product - torch.eye(len(gate), dtype=product.dtype)).abs().max()
        assert (error < 1e-4) == (kind == "orthogonal")
        assert gate.square().sum(0).mean().item() == pytest.approx(1, rel=0.15)


def recurrent_gates(layer: Any) -> list[Tensor]:
    """Every gate's square matrix of a layer of one direction."""
    if hasattr(layer, "streams"):
        return [gate for stream in layer.streams for gate in recurrent_gates(stream)]
    if hasattr(layer, "units"):
        weight = layer.units[0].weights()[1].detach()
        return list(weight.split(layer.dim))
    gates = list(layer.weights()[0].detach().split(layer.dim, dim=-1))
    return gates[1:] if hasattr(layer.weights, "diagonals") else gates


def parameters(unit: str, i: int, h: int) -> int:
    """Of one direction and layer without norm, as `docs/recurrent-units.md` counts them."""
    return {
        "rnn": h * i + h * h + h,
        "ligru": 2 * (h * i + h * h + h),
        "sligru": 2 * (h * i + h * h + h),
        "mgu": 2 * (h * i + h * h + h),
        "pmu": 2 * h * i + h * h + 3 * h,
        "img": 2 * (h * i + h * h + h),
        "gru": 3 * (h * i + h * h + 2 * h),
        "lstm": 4 * (h * i + h * h + 2 * h),
        "parallel_lstm": 4 * (h * i + h * h) // 3 + 8 * h,
        "qrnn": (h * i + h * h) // 4 + h,
        "qligru": (h * i + h * h) // 2 + 2 * h,
        "qlstm": h * i + h * h + 4 * h,
    }[unit]


@each_unit
def test_a_unit_has_the_documented_number_of_parameters(unit: str) -> None:
    model = encoder(unit, dim=24, norm="none", combine="concat")
    counts = [sum(p.numel() for p in layer.parameters()) for layer in model.layers]
    assert counts == [2 * parameters(unit, i, 24) for i in (INPUTS, 48)]


@each_unit
def test_every_unit_is_on_the_page_about_units(unit: str) -> None:
    page = (ROOT / "docs" / "recurrent-units.md").read_text(encoding="utf-8")
    assert f"`{unit}`" in page


# --- the study ------------------------------------------------------------------------------------


Rows = dict[str, tuple[schema.Model, int]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Model and parameters of each row of the study, at scale `sample`."""
    plan = load_plan(ROOT, "sample", ["recurrent_units"])
    models = {experiment.name: experiment.config.model for experiment in plan.experiments}
    return {name: (model, size(model)) for name, model in models.items()}


def size(model: schema.Model, **keys: Any) -> int:
    """Parameters of a model, or of one with other keys of its encoder."""
    changed = model.model_copy(update={"encoder": model.encoder.model_copy(update=keys)})
    with torch.device("meta"):  # nothing to draw
        return AcousticModel(changed, features=40, symbols=29).parameter_count()


def test_the_study_has_every_unit_at_equal_width_and_at_equal_parameters(rows: Rows) -> None:
    units = {name: model.encoder.unit for name, (model, _) in rows.items()}
    assert {unit for name, unit in units.items() if not name.endswith("_sized")} == set(UNITS)
    sized = {unit for name, unit in units.items() if name.endswith("_sized")}
    assert sized == set(UNITS) - {"lstm"}  # the others are as large as it is


def test_rows_of_equal_width_have_it(rows: Rows) -> None:
    other = ("_sized", "_timed")
    widths = {row.encoder.dim for name, (row, _) in rows.items() if not name.endswith(other)}
    assert len(widths) == 1


def test_rows_of_equal_size_have_the_width_that_comes_nearest(rows: Rows) -> None:
    _, wanted = rows["lstm"]
    for name, (model, count) in rows.items():
        unit, dim = model.encoder.unit, model.encoder.dim
        if name.endswith("_sized"):
            step = 4 if unit.startswith("q") else 3 if unit == "parallel_lstm" else 1
            off = [abs(size(model, dim=dim + change) - wanted) for change in (-step, step)]
            assert abs(count - wanted) <= min(off), name
            assert count == pytest.approx(wanted, rel=0.02), name
