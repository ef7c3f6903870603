"""Asks every installed backend for one thing that it may tell: its rules, its log, its speed."""

from __future__ import annotations

from functools import cache
from importlib.machinery import PathFinder
from typing import Any

from memserve import files, registry


def telling(part: str) -> dict[str, Any]:
    """Backend -> its `part`, for those that have one."""
    return _telling(part, registry.names())


@cache
def _telling(part: str, names: tuple[str, ...]) -> dict[str, Any]:
    asked = {name: getattr(registry.find(name), part, None) for name in names if may(name, part)}
    return {name: answer for name, answer in asked.items() if answer is not None}


def may(name: str, part: str) -> bool:
    """Providers' folders of our own without the part's file are left alone: they load the HTTP client."""
    package = registry.home(name) or ""
    ours = package.startswith("memserve_")
    return not ours or any(file.endswith(f"{part}.json") for file in _files(package))


@cache
def _files(package: str) -> tuple[str, ...]:
    spec = PathFinder.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return tuple(file for folder in folders for file in files.names(folder))
