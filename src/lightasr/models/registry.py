"""Finds the module that a component's configuration names: one file and one decorator each."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

from torch import nn

from lightasr.errors import LightasrError
from lightasr.schema import COMPONENTS, Component

FOLDERS = {
    "frontend": "models.frontends",
    "encoder": "models.encoders",
    "mixer": "models.mixers",
    "head": "models.heads",
    "objective": "objectives.pretraining",
}
_registered: dict[tuple[str, str], type[nn.Module]] = {}
Module = TypeVar("Module", bound=type[nn.Module])


def register(kind: str) -> Callable[[Module], Module]:
    """Class decorator: `@register("mixer")` in `mixers/luna.py` makes `mixer: luna` work."""

    def add(module: Module) -> Module:
        _registered[kind, module.__module__.rpartition(".")[2]] = module
        return module

    return add


def component(kind: str, config: Component) -> type[nn.Module]:
    """The module class that `config` configures."""
    if config.name not in COMPONENTS[kind]:
        raise LightasrError(f"unknown {kind} '{config.name}'; known: {', '.join(COMPONENTS[kind])}")
    import_module(f"lightasr.{FOLDERS[kind]}.{config.name}")
    return _registered[kind, config.name]
