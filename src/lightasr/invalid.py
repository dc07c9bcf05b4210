"""Says what is wrong with a configuration: file, entry, key, and the nearest valid name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lightasr.configfile import Tree
from lightasr.errors import LightasrError
from lightasr.schema import COMPONENTS, AnySection


@dataclass(frozen=True)
class Layer:
    """What one place of `config/` says: a scale, a study's base, an experiment, a grid point."""

    file: str
    entry: str | None
    tree: Tree

    def holds(self, path: list[str]) -> bool:
        node: Any = self.tree
        for depth, key in enumerate(path):
            if isinstance(node, str) and path[depth:] == ["name"]:
                return True
            if not isinstance(node, dict) or key not in node:
                return False
            node = node[key]
        return True


def check(model: type[AnySection], tree: Any, layers: list[Layer]) -> AnySection:
    """`tree` as the typed `model`, or an error that names file, entry, key and the nearest name."""
    try:
        # JSON is how pydantic takes a list for a tuple and still no string for a number.
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise LightasrError("\n".join(explain(error, model, tree, layers))) from None


def nearest(name: str, known: list[str]) -> str:
    """The end of an error message about a name nobody knows."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(known)[:20])}" if known else ""


def explain(
    error: ValidationError, model: type[BaseModel], tree: Tree, layers: list[Layer]
) -> Iterator[str]:
    """One line for each mistake."""
    told: list[list[str]] = []
    for detail in error.errors():
        path = _path(detail, tree)
        if detail["type"] == "too_short" and any(known[: len(path)] == path for known in told):
            continue  # pydantic counts the valid items alone; the others are told already
        told.append(path)
        yield f"{place(path, layers)}: {_reason(detail, path, model, tree)}"


def place(path: list[str], layers: list[Layer]) -> str:
    """File, entry and key: where to mend what is wrong at `path`."""
    layer = _source(path, layers)
    return ": ".join(part for part in (layer.file, layer.entry, ".".join(path)) if part)


def _path(detail: ErrorDetails, tree: Tree) -> list[str]:
    """The key in the file: pydantic's location without the tags of component unions."""
    path: list[str] = []
    node: Any = tree
    for step in detail["loc"]:
        if isinstance(node, dict) and step not in node and node.get("name") == step:
            continue
        if isinstance(node, str) and step == node:
            continue
        path.append(str(step))
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            node = None
    if path[-1:] == ["name"] and path[-2:-1] and path[-2] in COMPONENTS:
        path.pop()  # an unknown component, whether given in full or by its name alone
    return path


def _source(path: list[str], layers: list[Layer]) -> Layer:
    """The layer that wrote the key last: the one to edit."""
    for depth in range(len(path), 0, -1):
        for layer in reversed(layers):
            if layer.holds(path[:depth]):
                return layer
    return layers[-1]


def _reason(detail: ErrorDetails, path: list[str], model: type[BaseModel], tree: Tree) -> str:
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return f"unknown key{_nearest(path[-1], _fields(model, path[:-1], tree))}"
    if kind == "union_tag_invalid":
        name = str(detail["ctx"]["tag"])
        return f"unknown {path[-1]} '{name}'{_nearest(name, list(COMPONENTS[path[-1]]))}"
    if kind == "union_tag_not_found":
        return f"which {path[-1]}? add `name:`, one of {', '.join(COMPONENTS[path[-1]])}"
    if kind == "literal_error":
        key = next(step for step in reversed(path) if not step.isdigit())
        return f"unknown {key} '{given}'{_nearest(str(given), _literals(model, path, tree))}"
    if kind == "missing":
        return "missing"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return f"expected `key: value` lines (found {_shown(given)})"
    if kind == "too_short":
        return "expected at least one"
    message = detail["msg"].removeprefix("Value error, ")
    return message if kind == "value_error" else f"{message} (found {_shown(given)})"


def _shown(given: Any) -> str:
    return "nothing" if given is None else repr(given)


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"{hint} (known: {', '.join(known)})" if known else hint


def _model_at(model: type[BaseModel], path: list[str], tree: Tree) -> type[BaseModel] | None:
    """The section class that `path` leads to."""
    node: Any = tree
    current: type[BaseModel] | None = model
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
        if current is None or key not in current.model_fields:
            return None
        current = _section(current.model_fields[key].annotation, key, node)
    return current


def _section(annotation: Any, key: str, node: Any) -> type[BaseModel] | None:
    if key in COMPONENTS:
        name = node.get("name") if isinstance(node, dict) else node
        return COMPONENTS[key].get(str(name))
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
        for inner in get_args(option):  # dict[str, Part]
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                return inner
    return None


def _options(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)


def _fields(model: type[BaseModel], path: list[str], tree: Tree) -> list[str]:
    section = _model_at(model, path, tree)
    return list(section.model_fields) if section else []


def _literals(model: type[BaseModel], path: list[str], tree: Tree) -> list[str]:
    """The words a key may hold."""
    while path and path[-1].isdigit():
        path = path[:-1]
    if path[-1] in COMPONENTS:
        return list(COMPONENTS[path[-1]])
    section = _model_at(model, path[:-1], tree)
    if section is None or path[-1] not in section.model_fields:
        return []
    return [str(word) for word in _words(section.model_fields[path[-1]].annotation)]


def _words(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for inner in get_args(annotation):
            yield from _words(inner)
