"""Errors a user can act on: the command line prints the message alone and picks the exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LightasrError(Exception):
    """Bad input or a state the user must change; the command exits with 1."""

    exit_code = 1


class RetryError(LightasrError):
    """The work was interrupted and can go on from where it was; the command exits with 75."""

    exit_code = 75


class Mistakes:
    """Lines about what is wrong, each once, gathered so that they are told together."""

    def __init__(self) -> None:
        self.lines: dict[str, None] = {}

    @contextmanager
    def noted(self, where: str = "") -> Iterator[None]:
        """Go on after a mistake."""
        try:
            yield
        except LightasrError as error:
            self.lines |= {f"{where}{line}": None for line in str(error).splitlines()}

    def add(self, line: str) -> None:
        self.lines[line] = None

    def tell(self) -> None:
        if self.lines:
            raise LightasrError("\n".join(self.lines))
