"""The rows of a study: what its entries extend, their grids, and what a row comes to."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from lightasr import schema
from lightasr.configfile import Tree, merge, nested
from lightasr.errors import LightasrError
from lightasr.invalid import Layer, check, nearest, place

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
RESERVED = {"extends", "grid"}
SWITCHED = {"pretrain", "neural_lm"}
"""What is there where a study asks for it."""


def resolve(
    layers: list[Layer], encoders: dict[str, Tree]
) -> tuple[schema.Experiment, list[Layer]]:
    """`layers` go from the scale's to the entry's own; those that count are returned, too.

    `encoders` are the scale's sizes of encoders that it does not name itself.
    """
    layers = [_without_switches(layers), *layers[1:]]
    layers = _with_sizes(layers, encoders)
    tree: Tree = {}
    for layer in layers:
        for path in (["train", "seed"], ["neural_lm", "train", "seed"]):
            if layer.holds(path):
                where = place(path, [layer])
                raise LightasrError(f"{where}: set `seeds` of the study or the scale instead")
        tree = _laid_on(tree, layer)
    return check(schema.Experiment, tree, layers), layers


def _laid_on(tree: Tree, layer: Layer) -> Tree:
    if not layer.tree:  # many are, and a thousand rows are laid on them
        return tree
    over = schema.spelt_out(layer.tree)
    return schema.with_names(merge(tree, over), schema.Experiment, changed=over)


def _with_sizes(layers: list[Layer], encoders: dict[str, Tree]) -> list[Layer]:
    """What the scale says of the encoder comes before the first of the layers that settle on it."""
    if not encoders:
        return layers
    names = list(itertools.accumulate(map(_encoder_of, layers), _settled, initial=""))[1:]
    chosen = names[-1]
    if chosen not in encoders:
        return layers
    first = next(i for i in range(len(names)) if set(names[i:]) == {chosen})
    size = {"model": {"encoder": {"name": chosen, **encoders[chosen]}}}
    return [*layers[:first], Layer(layers[0].file, "encoders", size), *layers[first:]]


def _encoder_of(layer: Layer) -> Any:
    model = layer.tree.get("model")
    return model.get("encoder") if isinstance(model, dict) else None


def _settled(before: str, encoder: Any) -> str:
    """The encoder after one more layer; one set without a name is the one there, or the default."""
    if isinstance(encoder, dict):
        default = schema.Model.model_fields["encoder"].default["name"]
        return str(encoder.get("name", before or default))
    return encoder if isinstance(encoder, str) else before


def _without_switches(layers: list[Layer]) -> Layer:
    """A scale says how a model is pretrained, say, and the study whether it is."""
    scale, *others = layers
    asked = {key for layer in others for key in layer.tree}
    kept = {key: value for key, value in scale.tree.items() if key not in SWITCHED - asked}
    return Layer(scale.file, scale.entry, kept)


def expand(file: str, spec: schema.Study, entry: str) -> Iterator[tuple[str, list[Layer]]]:
    """The rows of one entry, a row a grid point, each with its layers from the root down."""
    if not NAME.fullmatch(entry):
        raise LightasrError(
            f"{file}: experiments: '{entry}' is not a name: use letters, digits, _ . + -"
        )
    layers = _chain(file, spec, entry)
    own = spec.experiments[entry] or {}
    if "grid" not in own:
        yield entry, layers
        return
    grid = own["grid"]
    if not (isinstance(grid, dict) and grid) or not all(
        isinstance(values, list) and values for values in grid.values()
    ):
        raise LightasrError(f"{file}: {entry}: grid: expected `key: [value, ...]` lines")
    rows: set[str] = set()
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        shown = ",".join(f"{key}={_shown(value)}" for key, value in point.items())
        row = f"{entry}[{shown}]"
        if row in rows:
            raise LightasrError(f"{file}: {entry}: grid: '{row}' is given twice")
        rows.add(row)
        tree: Tree = {}
        for key, value in point.items():
            tree = merge(tree, nested(key, value))
        yield row, [*layers, Layer(file, entry, tree)]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    short = f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _chain(file: str, spec: schema.Study, entry: str) -> list[Layer]:
    """An entry's own layer after those of all it extends."""
    layers: list[Layer] = []
    seen: list[str] = []
    name: Any = entry
    while name is not None:
        where = f"{file}: {seen[-1] if seen else entry}: extends"
        if not isinstance(name, str):
            raise LightasrError(f"{where}: expected the name of one experiment, found {name!r}")
        if name in seen:
            raise _cycle(file, spec, seen[seen.index(name) :])
        if name not in spec.experiments:
            hint = nearest(name, [known for known in spec.experiments if known != seen[-1]])
            raise LightasrError(f"{where}: no experiment '{name}'{hint}")
        own = spec.experiments[name] or {}
        if seen and "grid" in own:
            raise LightasrError(f"{where}: '{name}' is a grid, not one row")
        layers.insert(0, Layer(file, name, {k: v for k, v in own.items() if k not in RESERVED}))
        seen.append(name)
        name = own.get("extends")
    return layers


def _cycle(file: str, spec: schema.Study, cycle: list[str]) -> LightasrError:
    """The error of a cycle reads the same from whichever entry it was found."""
    first = min(cycle, key=list(spec.experiments).index)
    start = cycle.index(first)
    shown = " -> ".join([*cycle[start:], *cycle[:start], first])
    return LightasrError(f"{file}: {first}: extends: a cycle: {shown}")
