"""Seconds and money: a roofline with a cause for every term, workloads, prices, cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.speed.result import Range, Speed
from memserve.speed.roofline.forecast import predict

if TYPE_CHECKING:
    from memserve.speed import communication as communication
    from memserve.speed import compression as compression
    from memserve.speed import cost as cost
    from memserve.speed import prices as prices
    from memserve.speed import workloads as workloads

_PARTS = frozenset({"communication", "compression", "cost", "prices", "workloads"})
__all__ = ["Range", "Speed", "predict", *sorted(_PARTS)]


def __getattr__(name: str) -> Any:
    """A part that callers name without importing it: loaded when it is first used."""
    if name in _PARTS:
        from importlib import import_module

        return import_module(f"memserve.speed.{name}")
    raise AttributeError(f"module 'memserve.speed' has no attribute {name!r}")
