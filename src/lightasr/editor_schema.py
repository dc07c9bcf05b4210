"""The JSON schema of `config/`, by which editors complete and check what a person writes."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import ModelSchema

from lightasr import schema
from lightasr.configfile import Tree


def json_schema() -> dict[str, Any]:
    """The JSON schema of a study file, with every key an experiment may set."""
    partial = _partial(
        schema.Experiment.model_json_schema(
            ref_template="#/$defs/{model}", schema_generator=_Described
        )
    )
    for section in ("Train", "NeuralTrain"):
        del partial["$defs"][section]["properties"]["seed"]  # a study's `seeds` sets it
    settings = partial["properties"]
    study = schema.Study.model_json_schema(schema_generator=_Described)
    shared = {"type": "object", "additionalProperties": False, "properties": settings}
    study["properties"]["base"] |= shared
    study["properties"]["experiments"]["additionalProperties"] = {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "extends": {
                "type": "string",
                "description": "Row whose settings this one starts from.",
            },
            "grid": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"type": "array", "minItems": 1},
                "description": "Values by dotted key; a row for each combination.",
            },
            **settings,
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **study,
        "$defs": partial["$defs"],
    }


def _partial(tree: Any) -> Any:
    """A schema without `required`: a study sets only what it changes."""
    if isinstance(tree, list):
        return [_partial(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    partial = {key: _partial(value) for key, value in tree.items() if key != "required"}
    for key in partial.get("properties", {}).keys() & schema.COMPONENTS.keys():
        partial["properties"][key] = _component_schema(key, partial["properties"][key])
    return partial


def _component_schema(kind: str, tree: Tree) -> Tree:
    """Any component of a kind, or just its name; an entry need not repeat what its base names."""
    names = list(schema.COMPONENTS[kind])
    options = [{"$ref": f"#/$defs/{name}"} for name in names]
    kept = {key: value for key, value in tree.items() if key in {"default", "description"}}
    return {**kept, "anyOf": [*options, {"enum": names}]}


class _Described(GenerateJsonSchema):
    """Says of every key what stands below it in the source.

    Pydantic's own `use_attribute_docstrings` reads the source at every import, which takes longer
    than all else that planning imports.
    """

    def model_schema(self, schema: ModelSchema) -> dict[str, Any]:
        tree = super().model_schema(schema)
        for key, text in descriptions(schema["cls"]).items():
            tree["properties"][key]["description"] = text
        return tree


def descriptions(section: type[BaseModel]) -> dict[str, str]:
    """The string below each key of a section, its own or one of those it derives from."""
    found: dict[str, str] = {}
    for one in reversed(section.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            source = schema.SOURCES.get(one) or Path(inspect.getfile(sys.modules[one.__module__]))
            found |= _below_fields(source).get(one.__name__, {})
    return {key: text for key, text in found.items() if key in section.model_fields}


@cache
def _below_fields(source: Path) -> dict[str, dict[str, str]]:
    """By class of a file and field: the string that stands below it."""
    tree = ast.parse(source.read_text(encoding="utf-8"), filename=str(source))
    return {
        node.name: {
            field.target.id: inspect.cleandoc(text.value.value)
            for field, text in pairwise(node.body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
