"""Public names of a package, loaded when they are first used, and how one of them goes."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module

TYPE_CHECKING = False  # what checkers take for true
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def warn_deprecated(what: str, *, instead: str, removed_in: str, stacklevel: int = 2) -> None:
    """Warn whoever called the function that calls this (docs/stability.md)."""
    warnings.warn(
        f"{what} is deprecated and goes in memserve {removed_in}: use {instead}",
        DeprecationWarning,
        stacklevel=stacklevel + 1,
    )


def attach(package: str, homes: Mapping[str, str], renamed: Mapping[str, tuple[str, str]] | None = None,
           ) -> tuple[Callable[[str], object], Callable[[], list[str]]]:  # fmt: skip
    """A package's `__getattr__` and `__dir__`: `homes` says in which module each public name is.

    A module that stands for itself has its own name as its home. `renamed` holds old names, each with the new
    one and the release that drops the old. Call this where TYPE_CHECKING is false only: a checker that sees
    a `__getattr__` believes in every misspelt name.
    """

    def getattr_(name: str) -> object:
        if renamed and name in renamed:
            new, release = renamed[name]
            warn_deprecated(f"{package}.{name}", instead=f"{package}.{new}", removed_in=release)
            return getattr(sys.modules[package], new)
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = import_module(f"{package}.{homes[name]}")
        value = home if homes[name] == name else getattr(home, name)
        setattr(sys.modules[package], name, value)
        return value

    return getattr_, lambda: sorted({*vars(sys.modules[package]), *homes})
