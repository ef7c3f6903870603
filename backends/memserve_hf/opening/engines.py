"""Imports of the engine, with the install line when a piece is missing."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from memserve.errors import BackendMissing

INSTALL = 'pip install "memserve[hf]"'


def need(module: str, package: str | None = None) -> Any:
    """A module of the engine; `BackendMissing` names the package and the command that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        if missing != module.partition(".")[0]:
            raise BackendMissing("hf", needs=f"{missing} (for {module})", install=INSTALL) from error
        raise BackendMissing("hf", needs=package or missing, install=INSTALL) from error


def present(package: str) -> str | None:
    """The installed version of a distribution, or None; imports nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
