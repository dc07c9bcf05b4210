"""Recurrent layers side by side: torch's, SpeechBrain's, and ours with each kernel.

A layer is the input product and the recurrence, from input (T, B, I) to states. Ours has neither
bias nor normalisation; SpeechBrain's are jitted and normalise the input product, as shipped. The
other units of the encoder `ds2` are in the short cases only, which the figure shows, or by `full`.
`forward_ms` is inference (no gradients kept), `train_ms` a forward pass in training and the
gradient of the states' sum by input and weights. All layers of a case are measured in turns, so
that whatever else the machine does meets all.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import product
from typing import Any, NamedTuple

import matplotlib
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lightasr.cost.timing import (
    SAMPLE_SECONDS,
    Device,
    Measured,
    chosen_device,
    described,
    kept_bytes,
    peak_bytes,
    timed,
    torch_threads,
    warmed_up,
)
from lightasr.errors import LightasrError
from lightasr.invalid import nearest
from lightasr.kernels.scan import KERNELS, scan
from lightasr.models.encoders import ds2
from lightasr.models.recurrent.parallel import STREAMS
from lightasr.page.figures import COLOURS, SETTINGS, new_figure, to_svg
from lightasr.progress import Bar, say, track
from lightasr.threads import usable_cores

TITLE = "Recurrent layers: time and memory of a forward pass and of a training step"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
REPEATS = 7
WARM_UP = 2
JIT_WARM_UP = 3  # one to profile, one to compile, one as it will be
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}
COPY_BYTES = {"cpu": 2**27, "cuda": 2**30}


@dataclass(frozen=True)
class Case:
    """A shape that every layer is measured at."""

    batch: int
    steps: int
    inputs: int
    states: int
    directions: int = 1
    dtype: str = "fp32"

    @property
    def name(self) -> str:
        direction = "uni" if self.directions == 1 else "bi"
        shape = f"B{self.batch} T{self.steps} I{self.inputs} H{self.states}"
        return f"{shape} {direction} {self.dtype}"


SHORT = 20  # steps; the cases for the figure: how time grows with the states, at little cost
SELECTION = {
    "cpu": (
        Case(16, 400, 512, 512),
        *(Case(16, SHORT, size, size) for size in (256, 512, 1024)),
        Case(1, 1, 512, 512),  # a step of streaming
    ),
    "cuda": (
        Case(16, 400, 512, 512),
        *(Case(16, 400, size, size, dtype="bf16") for size in (256, 512, 1024)),
        *(Case(64, 400, size, size, dtype="bf16") for size in (512, 1024)),
        Case(1, 1, 512, 512),
    ),
}
GRID_DTYPES = {"cpu": ("fp32",), "cuda": ("fp32", "bf16")}


def all_cases(device: Device) -> tuple[Case, ...]:
    """The grid, and what of the selection is not in it."""
    grid = [
        Case(batch, steps, states, states, directions, dtype)
        for batch, steps, states, directions, dtype in product(
            (1, 8, 16, 64), (100, 400, 1600), (256, 512, 1024), (1, 2), GRID_DTYPES[device]
        )
    ]
    return tuple(dict.fromkeys([*SELECTION[device], *grid]))


def choose_cases(device: Device, part: str | None, full: bool) -> tuple[Case, ...]:
    """Those of the selection, or of all, that have `part` in their name."""
    among = all_cases(device) if full else SELECTION[device]
    chosen = tuple(case for case in among if (part or "") in case.name)
    if chosen:
        return chosen
    names = [case.name for case in all_cases(device)]
    if any(str(part) in name for name in names):
        raise LightasrError(f"--case '{part}': such cases are in the grid only, add --full")
    raise LightasrError(f"--case '{part}': no case is called so{nearest(str(part), names)}")


# --- the layers ---------------------------------------------------------------------------------


class TorchLayer(nn.Module):
    """nn.LSTM, nn.GRU or nn.RNN."""

    batch_first = False

    def __init__(self, kind: Callable[..., nn.Module], case: Case) -> None:
        super().__init__()
        self.rnn = kind(case.inputs, case.states, bidirectional=case.directions == 2)

    def forward(self, x_tbi: Tensor) -> Tensor:
        states: Tensor = self.rnn(x_tbi)[0]
        return states


class SpeechBrainLayer(nn.Module):
    """LiGRU or SLiGRU of `speechbrain.nnet.RNN`, jitted as its documentation advises."""

    batch_first = True

    def __init__(self, kind: str, case: Case) -> None:
        super().__init__()
        rnn = getattr(import_module("speechbrain.nnet.RNN"), kind)(
            hidden_size=case.states,
            input_shape=(case.batch, case.steps, case.inputs),
            bidirectional=case.directions == 2,
        )
        self.rnn: Any = torch.jit.script(rnn)

    def forward(self, x_bti: Tensor) -> Tensor:
        states: Tensor = self.rnn(x_bti)[0]
        return states


class OurLayer(nn.Module):
    """One product for all gates of both directions, then the scan of a cell by a kernel."""

    batch_first = False

    def __init__(self, cell: str, kernel: str, case: Case) -> None:
        super().__init__()
        self.cell, self.kernel, self.directions = cell, kernel, case.directions
        gates = GATES[cell] * case.states
        self.product = nn.Linear(case.inputs, case.directions * gates, bias=False)
        bound = case.states**-0.5  # torch's: states stay bounded
        self.weight_dhg = nn.Parameter(
            torch.empty(case.directions, case.states, gates).uniform_(-bound, bound)
        )

    def forward(self, x_tbi: Tensor) -> Tensor:
        gates_tbdg = self.product(x_tbi).unflatten(-1, (self.directions, -1))
        size, batch = self.weight_dhg.shape[1], x_tbi.shape[1]
        h0_dbh = x_tbi.new_zeros(self.directions, batch, size)
        if self.directions == 1:
            gates_tdbg = gates_tbdg.transpose(1, 2)
            return scan(self.cell, gates_tdbg, self.weight_dhg, h0_dbh, kernel=self.kernel)[:, 0]
        forth_tbg, back_tbg = gates_tbdg.unbind(2)
        gates_tdbg = torch.stack([forth_tbg, back_tbg.flip(0)], 1)
        states_tdbh = scan(self.cell, gates_tdbg, self.weight_dhg, h0_dbh, kernel=self.kernel)
        return torch.cat([states_tdbh[:, 0], states_tdbh[:, 1].flip(0)], -1)


class ProductsAlone(nn.Module):
    """A Light GRU's matrix products and nothing else, all steps at once as if none had to wait."""

    batch_first = False

    def __init__(self, case: Case) -> None:
        super().__init__()
        gates, frames = case.directions * GATES["ligru"] * case.states, case.steps * case.batch
        self.product = nn.Linear(case.inputs, gates, bias=False)
        self.states = nn.Parameter(torch.zeros(case.directions, frames, case.states))
        self.weight_dhg = nn.Parameter(
            torch.empty(case.directions, case.states, GATES["ligru"] * case.states).normal_()
        )

    def forward(self, x_tbi: Tensor) -> Tensor:
        gates_dng = self.product(x_tbi.flatten(0, 1)).unflatten(-1, (len(self.states), -1))
        return torch.baddbmm(gates_dng.transpose(0, 1), self.states, self.weight_dhg)


class UnitLayer(nn.Module):
    """A layer of the encoder `ds2`, of any unit, with the kernel that it chooses."""

    batch_first = True

    def __init__(self, unit: str, case: Case) -> None:
        super().__init__()
        states = case.states // STREAMS * STREAMS if unit == "parallel_lstm" else case.states
        options = {"unit": unit, "dim": states, "bidirectional": case.directions == 2}
        config = ds2.Config.model_validate({"name": "ds2", "norm": "none", **options})
        self.unit = ds2.LAYERS[unit](config, case.inputs)

    def forward(self, x_bti: Tensor) -> Tensor:
        lengths_b = torch.full((len(x_bti),), x_bti.shape[1], device=x_bti.device)
        return torch.cat(self.unit(x_bti, lengths_b), -1)


class Impl(NamedTuple):
    """A layer that is measured; `missing` says why it cannot be on a device."""

    name: str
    cell: str
    maker: str
    build: Callable[[Case], nn.Module]
    missing: Callable[[torch.device], str | None]
    warm_up: int = WARM_UP
    least_frames: int = 1  # of a batch, to train
    long: bool = True  # whether cases of many steps are worth the time


GATES = {"lstm": 4, "gru": 3, "rnn": 1, "ligru": 2, "sligru": 2, "mgu": 2}
# What the other units of `ds2` run on, and what sets each apart from that.
UNITS = {
    "rnn": ("rnn", "unit"),
    "img": ("gru", "unit"),
    "pmu": ("mgu", "unit"),
    "parallel_lstm": ("lstm", "streams"),
    "qrnn": ("rnn", "quaternion"),
    "qlstm": ("lstm", "quaternion"),
    "qligru": ("ligru", "quaternion"),
}
# Matrices of the input and of the state that a layer has to multiply by, where not one per gate.
# A Hamilton product is as many multiplications as that of its block matrix.
MATRICES = {"img": (2, 2), "pmu": (2, 1), "parallel_lstm": (4 / STREAMS, 4 / STREAMS)}
LSTM = "nn.LSTM"


def anywhere(device: torch.device) -> str | None:
    return None


def without_speechbrain(device: torch.device) -> str | None:
    if find_spec("speechbrain") is None:
        return "speechbrain is not installed (`pip install '.[bench]'`)"
    return None


def without_kernel(cell: str, kernel: str, device: torch.device) -> str | None:
    module = import_module(KERNELS[kernel])
    why: str | None = module.unavailable(device)
    return why or (None if cell in module.CELLS else f"it has no {cell}")


IMPLS = (
    Impl(LSTM, "lstm", "torch", partial(TorchLayer, nn.LSTM), anywhere),
    Impl("nn.GRU", "gru", "torch", partial(TorchLayer, nn.GRU), anywhere),
    Impl("nn.RNN", "rnn", "torch", partial(TorchLayer, nn.RNN), anywhere),
    *(
        Impl(
            f"speechbrain-{kind.lower()}",
            kind.lower(),
            "speechbrain",
            partial(SpeechBrainLayer, kind),
            without_speechbrain,
            JIT_WARM_UP,
            least_frames=2,  # batch norm refuses one
        )
        for kind in ("LiGRU", "SLiGRU")
    ),
    *(
        Impl(f"{cell}-reference", cell, "reference", partial(OurLayer, cell, "reference"), anywhere)
        for cell in ("ligru", "sligru")
    ),
    *(
        Impl(
            f"{cell}-{kernel}",
            cell,
            kernel,
            partial(OurLayer, cell, kernel),
            partial(without_kernel, cell, kernel),
        )
        for kernel in KERNELS
        for cell in ("ligru", "sligru", "mgu")
    ),
    Impl("ligru-products", "ligru", "products", ProductsAlone, anywhere),
    *(
        Impl(unit, cell, maker, partial(UnitLayer, unit), anywhere, long=False)
        for unit, (cell, maker) in UNITS.items()
    ),
)


def measured_at(case: Case, impls: Sequence[Impl], full: bool) -> list[Impl]:
    return [impl for impl in impls if full or impl.long or case.steps <= SHORT]


def available(device: torch.device) -> list[Impl]:
    """The layers that run here; says once of each reason what is left out for it."""
    left_out: dict[str, list[str]] = {}
    found = []
    for impl in IMPLS:
        why = impl.missing(device)
        if why is None:
            found.append(impl)
        else:
            left_out.setdefault(why, []).append(impl.name)
    for why, names in left_out.items():
        say(f"bench kernels: without {', '.join(names)}: {why}")
    return found


# --- measuring ----------------------------------------------------------------------------------


class Machine(NamedTuple):
    """What bounds a layer: rate of the matrix product by dtype (FLOP/s), copying (bytes/s)."""

    product: Mapping[str, float]
    copy: float


class Subject:
    """A layer at a case: what is timed, and the seconds it took so far."""

    def __init__(self, impl: Impl, case: Case, device: torch.device) -> None:
        self.impl, self.case, self.device = impl, case, device
        dtype = DTYPES[case.dtype]
        torch.manual_seed(0)
        # Two layers: what a jitted one learned of training must not slow its inference.
        self.layer = impl.build(case).to(device, dtype)
        self.frozen = impl.build(case).to(device, dtype).eval()
        x = torch.randn(case.steps, case.batch, case.inputs, device=device, dtype=dtype)
        self.x = (x.transpose(0, 1).contiguous() if self.layer.batch_first else x).requires_grad_()
        self.leaves = [self.x, *(p for p in self.layer.parameters() if p.requires_grad)]
        self.grad = torch.ones_like(self.forward())
        self.seconds: dict[str, list[float]] = {"forward": [], "train": []}
        self.work = {"forward": self.forward, "train": self.train}
        self.calls = {
            name: warmed_up(work, device, impl.warm_up, SAMPLE_SECONDS)
            for name, work in self.work.items()
        }
        self.memory = self._memory()

    @torch.no_grad()
    def forward(self) -> Tensor:
        states: Tensor = self.frozen(self.x)
        return states

    def train(self) -> None:
        torch.autograd.grad(self.layer(self.x), self.leaves, self.grad)

    def sample(self) -> None:
        for name, work in self.work.items():
            self.seconds[name].append(timed(work, self.device, self.calls[name]))

    def _memory(self) -> int:
        """Bytes besides input and weights: the most in a training step; on a CPU, what is kept."""
        if self.device.type == "cpu":
            return kept_bytes(self.layer, self.x)
        return peak_bytes(self.train)

    def milliseconds(self, name: str) -> float:
        return 1000 * statistics.median(self.seconds[name])


def matrices(impl: Impl) -> tuple[float, float]:
    return MATRICES.get(impl.name, (GATES[impl.cell],) * 2)


def weights(case: Case, impl: Impl) -> int:
    """Numbers that the products of a frame meet."""
    of_input, of_state = matrices(impl)
    return case.directions * round(case.states * (of_input * case.inputs + of_state * case.states))


def flops(case: Case, impl: Impl) -> int:
    """Of the matrix products of a training step: the forward pass and twice as many backward."""
    return 3 * 2 * weights(case, impl) * case.steps * case.batch


def least_bytes(case: Case, impl: Impl) -> float:
    """A training step that reads and writes everything once: values, and their gradients."""
    frame = case.inputs + case.directions * case.states * (matrices(impl)[0] + 1)
    total = frame * case.steps * case.batch + weights(case, impl)
    return 4 * total * DTYPES[case.dtype].itemsize


def measure_machine(device: torch.device, dtypes: Sequence[str]) -> Machine:
    """By a large square product of each dtype, and by a copy of more than caches hold."""
    size = PRODUCT_SIZE[device.type]
    products = {}
    for dtype in dtypes:
        a, b = torch.randn(2, size, size, device=device).to(DTYPES[dtype])
        products[dtype] = 2 * size**3 / least_seconds(partial(torch.mm, a, b), device)
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    copying = partial(torch.empty_like(source).copy_, source)
    return Machine(products, 2 * source.numel() / least_seconds(copying, device))


def least_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The best of several: of a bound, nothing but the machine should be in it."""
    return min(timed(work, device) for _ in range(WARM_UP + 2 * REPEATS))


def measure(
    cases: Sequence[Case], on: Device, full: bool = False
) -> Iterator[tuple[list[Measured], Measured]]:
    """After each case: a row for each of its layers and of the earlier ones', and the machine."""
    device = chosen_device("kernels", on)
    with torch_threads(usable_cores()):
        impls = available(device)
        machine = measure_machine(device, sorted({case.dtype for case in cases}))
        rows: list[Measured] = []
        of = {case: measured_at(case, impls, full) for case in cases}
        work = sum(
            (impl.warm_up + REPEATS) * flops(case, impl) for case in cases for impl in of[case]
        )
        with track("bench kernels", total=work) as bar:
            for case in cases:
                rows += case_rows(case, of[case], device, machine, bar)
                yield rows, described(device) | bounds(machine)


def case_rows(
    case: Case, impls: Sequence[Impl], device: torch.device, machine: Machine, bar: Bar
) -> list[Measured]:
    """All layers at one shape, in turns."""
    subjects = []
    for impl in impls:
        if case.batch * case.steps < impl.least_frames:
            say(f"bench kernels: {case.name} without {impl.name}, which cannot train on one frame")
            continue
        subjects.append(Subject(impl, case, device))
        bar.update(impl.warm_up * flops(case, impl), case=case.name)
    for _ in range(REPEATS):
        for subject in subjects:
            subject.sample()
            bar.update(flops(case, subject.impl))
    (lstm,) = [subject for subject in subjects if subject.impl.name == LSTM]
    return [row(subject, lstm.milliseconds("train"), machine) for subject in subjects]


def row(subject: Subject, lstm_ms: float, machine: Machine) -> Measured:
    case, impl = subject.case, subject.impl
    train_ms = subject.milliseconds("train")
    product_ms = 1000 * flops(case, impl) / machine.product[case.dtype]
    copy_ms = 1000 * least_bytes(case, impl) / machine.copy
    return {
        "case": case.name,
        "impl": subject.impl.name,
        "forward_ms": subject.milliseconds("forward"),
        "train_ms": train_ms,
        "memory_mb": subject.memory / 1e6,
        "speed_of_lstm": lstm_ms / train_ms,
        "gflops_of_bound": product_ms / train_ms,
        "bytes_of_bound": copy_ms / train_ms,
    }


def bounds(machine: Machine) -> Measured:
    """What bounds the layers, and the versions of packages that some of them are from."""
    found: Measured = {
        f"product_gflops_{dtype}": rate / 1e9 for dtype, rate in machine.product.items()
    }
    found["copy_gb_per_second"] = machine.copy / 1e9
    for package in ("speechbrain", "numba", "triton", "numba-cuda"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# --- the figure ---------------------------------------------------------------------------------

COLOUR_OF_CELL = dict(zip(GATES, COLOURS, strict=False))
STYLE_OF_MAKER: dict[str, Any] = {
    "torch": {"linestyle": "-", "marker": "o"},
    "speechbrain": {"linestyle": ":", "marker": "s"},
    "reference": {"linestyle": "--", "marker": "D"},
    "numba": {"linestyle": "-", "marker": "^"},
    "triton": {"linestyle": "-", "marker": "v"},
    "numba-cuda": {"linestyle": "-.", "marker": "P"},
    "products": {"linestyle": (0, (1, 3)), "marker": ""},
    "unit": {"linestyle": "-", "marker": "x"},
    "streams": {"linestyle": "--", "marker": "1"},
    "quaternion": {"linestyle": "--", "marker": "*"},
}


def drawn_cases(cases: Sequence[Case]) -> list[Case]:
    """Those that differ by the number of states alone, as many as there are, in their order."""
    alike: dict[tuple[int, int, int, str], list[Case]] = {}
    for case in cases:
        key = (case.batch, case.steps, case.directions, case.dtype)
        alike.setdefault(key, []).append(case)
    most = max(alike.values(), key=lambda found: len(found))
    return sorted(most, key=lambda case: case.states)


@matplotlib.rc_context(SETTINGS)
def figure(cases: Sequence[Case], made: Sequence[Measured]) -> str | None:
    """Time of a step against the number of states, as SVG; None if there is only one number."""
    drawn = drawn_cases(cases)
    if len(drawn) < 2:
        return None
    of = {(row["case"], row["impl"]): row for row in made}
    measured = [impl for impl in IMPLS if (drawn[0].name, impl.name) in of]
    # Above, those that are compared with each other; below, the rest beside torch's.
    groups = [
        [impl for impl in measured if impl.long],
        [impl for impl in measured if impl.maker == "torch" or not impl.long],
    ]
    if len(groups[1]) == sum(impl.maker == "torch" for impl in measured):
        groups.pop()  # no others
    picture = new_figure(height=3.4 * len(groups))
    panels = {"forward_ms": "Forward", "train_ms": "Forward and backward"}
    all_axes = picture.subplots(len(groups), 2, sharex=True, sharey=True, squeeze=False)
    for group, axes in zip(groups, all_axes, strict=True):
        for axis, (column, title) in zip(axes, panels.items(), strict=True):
            for impl in group:
                draw(axis, impl, drawn, [of[case.name, impl.name][column] for case in drawn])
            axis.set_title(title)
        axes[0].set_ylabel(f"µs per step, batch {drawn[0].batch}, {drawn[0].dtype}")
        axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    for axis in all_axes[-1]:
        axis.set_xlabel("states H")
    return to_svg(picture, "time of a step against the number of states")


def draw(axis: Axes, impl: Impl, cases: Sequence[Case], taken: Sequence[Any]) -> None:
    """A layer's line: microseconds of a step at each case's number of states."""
    sizes = [case.states for case in cases]
    times = [1000 * float(ms) / case.steps for ms, case in zip(taken, cases, strict=True)]
    style = STYLE_OF_MAKER[impl.maker]
    axis.plot(sizes, times, label=impl.name, color=COLOUR_OF_CELL[impl.cell], **style)
    axis.set(xscale="log", yscale="log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.xaxis.minorticks_off()
