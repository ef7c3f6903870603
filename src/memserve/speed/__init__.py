"""Seconds and money: a roofline with a cause for every term, workloads, prices, cost."""

from __future__ import annotations

from memserve.speed.forecast import predict
from memserve.speed.result import Range, Speed

__all__ = ["Range", "Speed", "predict"]
