"""Errors a user can act on: the command line prints the message alone and picks the exit code."""

from __future__ import annotations


class LightasrError(Exception):
    """Bad input or a state the user must change; the command exits with 1."""

    exit_code = 1


class RetryError(LightasrError):
    """The work was interrupted and can go on from where it was; the command exits with 75."""

    exit_code = 75
