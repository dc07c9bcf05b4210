"""Reads and merges the files of `config/`: what was written where, before any type is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lightasr.errors import LightasrError

Tree = dict[str, Any]


class _Loader(yaml.CSafeLoader):
    """YAML 1.2's plain scalars (`1e-3` is a number, `no` a word), and no key given twice."""


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {  # no dates, sets or bytes: JSON, which keys are made of, has none
    tag: make
    for tag, make in yaml.CSafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in {"null", "bool", "float", "seq", "str"}
}
for _tag, _pattern, _first in [
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
    ("tag:yaml.org,2002:merge", r"^(?:<<)$", "<"),
]:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Tree:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = key_node.value
        where = f"{node.start_mark.name}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise LightasrError(f"{where}: a key is a word, not a list or a mapping")
        if key in seen and key != "<<":
            raise LightasrError(f"{where}: '{key}' is given twice")
        seen.add(key)
    loader.flatten_mapping(node)
    return {str(k.value): loader.construct_object(v, deep=True) for k, v in node.value}


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value)  # YAML 1.1 would read 010 as octal


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file; an empty file is an empty mapping."""
    try:
        with path.open(encoding="utf-8") as stream:
            tree = yaml.load(stream, Loader=_Loader)
    except FileNotFoundError:
        raise LightasrError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise LightasrError(f"{path}: not UTF-8 text ({error.reason})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise LightasrError(f"{path}{where}: not valid YAML: {problem}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise LightasrError(f"{path}: expected `key: value` lines, found a {type(tree).__name__}")
    return tree


def merge(base: Any, over: Any) -> Any:
    """`over` laid on `base`: mappings merge, everything else (lists too) replaces.

    A mapping that names another `name` (another encoder, another corpus) starts afresh, because
    the keys of the one mean nothing to the other.
    """
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    if "name" in over and "name" in base and over["name"] != base["name"]:
        return over
    return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}


def nested(dotted: str, value: Any) -> Tree:
    """`nested("train.lr", 1)` is `{"train": {"lr": 1}}`."""
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value
