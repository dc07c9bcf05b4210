"""The encoders of a study measured by hand (`lightasr.cost.lengths`): a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib

from lightasr.cost.lengths import COUNTED_SECONDS, Figures, Lengths, Point, figures, measure
from lightasr.cost.timing import Device, Measured, chosen_device
from lightasr.page.figures import COLOURS, SETTINGS, new_figure, to_svg
from lightasr.plan import Experiment
from lightasr.planner import measured_model
from lightasr.schema import Measure

REFERENCE = "mhsa"
TITLE = "Encoders: cost against the length of utterances"


class Found(NamedTuple):
    """All that was measured."""

    rows: list[Measured]
    points: list[Point]
    machine: Measured
    note: str


def measure_encoders(experiments: Sequence[Experiment], on: Device, how: Measure) -> Found:
    """Every experiment at every length, in fp32."""
    models = {
        experiment.name: measured_model(experiment.config).model_copy(update={"precision": "fp32"})
        for experiment in experiments
    }
    device = chosen_device("encoders", on)
    costs = measure(models, device, how.seconds, how.rounds, "bench encoders")
    lengths = Lengths.of(how.seconds)
    reference = REFERENCE if REFERENCE in models else next(iter(models))
    of = {subject.name: figures(subject, costs.points, lengths) for subject in costs.subjects}
    rows = [row(name, of[name], reference, of[reference]) for name in of]
    machine = costs.machine | {"precision": "fp32"}
    return Found(rows, costs.points, machine, note(reference, lengths))


def row(name: str, own: Figures, reference: str, others: Figures) -> Measured:
    """Figures of an encoder, with the time of a step as a share of the reference's."""
    made: Measured = {"experiment": name}
    for figure, value in own.items():
        if figure == "train_ms":
            made[f"train_of_{reference}"] = value / others[figure]
        else:
            made[figure] = value
    return made


def note(reference: str, lengths: Lengths) -> str:
    growth = ", ".join(map(str, lengths.growth))
    return (
        f"`gmacs_per_s`: billions of multiply-accumulates per second of audio, in "
        f"{COUNTED_SECONDS} s of it; N log2 N x 5/2 for an FFT of N numbers, half of that if "
        f"they are real; what is done element by element does not count. `rtfx`: seconds of "
        f"audio in a second of inference, at {lengths.speed} s. `train_of_{reference}`: the "
        f"time of a training step over that of `{reference}`, at {lengths.training} s. "
        f"`saved_mb`: activations that wait for the backward pass, at {lengths.training} s; "
        f"`peak_mb`, where there is a GPU: the most that a training step holds there besides "
        f"weights and input. `..._exp`: the power of the length that it grows by, fitted at "
        f"{growth} s. One utterance at a time."
    )


STYLES: tuple[dict[str, Any], ...] = (
    {"linestyle": "-", "marker": "o"},
    {"linestyle": "--", "marker": "s"},
    {"linestyle": ":", "marker": "^"},
    {"linestyle": "-.", "marker": "D"},
)


@matplotlib.rc_context(SETTINGS)
def figure(points: Sequence[Point]) -> str:
    """Time of a training step and saved memory against the length, as SVG."""
    lines: dict[str, list[Point]] = {}
    for point in points:
        lines.setdefault(point.model, []).append(point)
    picture = new_figure(height=4.2)
    axes = picture.subplots(1, 2, sharex=True)
    panels = {"train_ms": "Training step, ms", "saved_mb": "Saved for the backward pass, MB"}
    for axis, (column, title) in zip(axes, panels.items(), strict=True):
        for i, (name, line) in enumerate(lines.items()):
            seconds = [point.seconds for point in line]
            values = [getattr(point, column) for point in line]
            style = STYLES[i // len(COLOURS) % len(STYLES)]
            axis.plot(
                seconds, values, label=name, color=COLOURS[i % len(COLOURS)], markersize=4, **style
            )
        axis.set(xscale="log", yscale="log", title=title, xlabel="seconds of audio")
        axis.set_xticks(seconds, [str(length) for length in seconds])
        axis.xaxis.minorticks_off()
    axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return to_svg(picture, "cost of encoders against the length of utterances")
