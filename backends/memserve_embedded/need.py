"""A part of the engine, or the command that installs it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from memserve.errors import BackendMissing

INSTALL = 'pip install "memserve[embedded]"'


def need(module: str, package: str | None = None) -> Any:
    """A module of the engine; `BackendMissing` names the package and the command that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise BackendMissing("embedded", needs=package or module, install=INSTALL) from error
