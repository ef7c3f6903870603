"""Seconds and money: a roofline with a cause for every term, workloads, prices, cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy
from memserve.speed.result import Range, Speed
from memserve.speed.roofline.forecast import predict

if TYPE_CHECKING:
    from memserve.speed import communication as communication
    from memserve.speed import compression as compression
    from memserve.speed import cost as cost
    from memserve.speed import prices as prices
    from memserve.speed import workloads as workloads

_PARTS = ("communication", "compression", "cost", "prices", "workloads")
__all__ = ["Range", "Speed", "predict", *_PARTS]
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, dict(zip(_PARTS, _PARTS, strict=True)))
