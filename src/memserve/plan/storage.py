"""What a plan downloads and keeps, on disk and in an object store, and what the store asks for it."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from memserve.hardware.machine import GIB
from memserve.memory.weights import Split, stage_bytes, storage
from memserve.plan.candidate import loaded
from memserve.speed import prices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.model.spec import ModelSpec
    from memserve.plan.plan import Plan

_ROOM = 1.1
"""For what lies beside the weights."""
_RECORD = 600
"""Bytes of a line of results besides its text."""
_MONTH = 365 / 12
KEPT = (30, 90, 365)
"""Days for which costs are told."""


def disk_gib(plan: Plan) -> int:
    """The disk that the weights need, the made ones beside those that they are made of."""
    return ceil(sum(_weights(plan)) * _ROOM / GIB)


def told(plan: Plan) -> dict[str, Any] | None:
    """`storage` of the JSON answer; None where a provider keeps the weights."""
    if plan.remote or not plan.model.blocks:
        return None
    download, made = _weights(plan)
    sizes = {"weights": made or download, "data": None, "results": None}
    if plan.workload:
        from memserve.speed.workloads import CHARACTERS

        job = plan.workload
        sizes["data"] = int(job["requests"] * job["prompt_tokens"] * CHARACTERS)
        sizes["results"] = int(job["requests"] * (job["output_tokens"] * CHARACTERS + _RECORD))
    return {
        "download_gib": _gib(download), "disk_gib": disk_gib(plan),
        **{f"{name}_gib": _gib(size) for name, size in sizes.items()},
        "stores": [{
            "store": row["store"], "region": row["region"], "date": prices.stamp(), "source": row["source"],
            "usd": {name: _costs(row, name, size) for name, size in sizes.items()},
        } for row in prices.stores()],
    }  # fmt: skip


def sentence(plan: Plan) -> str:
    """The same in a line, with the first store's price."""
    found = told(plan)
    if found is None:
        return ""
    row = found["stores"][0]
    usd = row["usd"]["weights"]
    costs = ", ".join(f"{usd[str(days)]:.2f} $ for {days} days" for days in KEPT)
    return (
        f"{found['download_gib']:.1f} GiB to download, {found['disk_gib']} of disk; in {row['store']} {costs}"
    )


def usd(classes: list[Mapping[str, Any]], gib: float, days: int) -> float:
    """What a store asks for so many days: things move to each class at its age."""
    total = 0.0
    for place, one in enumerate(classes):
        if days <= one["after_days"]:
            break
        until = classes[place + 1]["after_days"] if place + 1 < len(classes) else days
        stays = max(min(until, days) - one["after_days"], one["least_days"])
        total += one["usd_per_gib_month"] * gib * stays / _MONTH
    return total


def _costs(row: Mapping[str, Any], name: str, size: int | None) -> dict[str, float] | None:
    if size is None:
        return None
    classes = row["classes"][:1] if name == "weights" else row["classes"]  # weights are read at every start
    return {str(days): float(f"{usd(classes, size / GIB, days):.4g}") for days in KEPT}


def _weights(plan: Plan) -> tuple[int, int]:
    """Bytes to download, and those of a checkpoint that is made of them."""
    point, model = plan.checkpoint, plan.model
    own = _bytes(loaded(model, point), plan.quantization)
    if point.make or point.online:
        stored = model.quantization.method if model.quantization else "none"
        return _bytes(model, stored), own if point.make else 0
    return own, 0


def _bytes(model: ModelSpec, quantization: str) -> int:
    return sum(stage_bytes(model, Split(), storage(model, quantization, model.dtype)))


def _gib(size: int | None) -> float | None:
    return None if size is None else float(f"{size / GIB:.4g}")
