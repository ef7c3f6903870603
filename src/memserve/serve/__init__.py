"""Starts what a plan names, watches it, stops it.  python -m memserve.serve PLAN.json"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memserve.serve.served import Served, open_served
    from memserve.serve.server import Server, start

__all__ = ["Served", "Server", "open_served", "start"]
_HOMES = {"Served": "served", "Server": "server", "open_served": "served", "start": "server"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'memserve.serve' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"memserve.serve.{_HOMES[name]}"), name)
