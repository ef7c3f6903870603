"""The rows of memory.json: what a start of vLLM costs, by engine version and card."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from memserve.plan.version import within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.hardware.machine import Card

GIB = 1024**3


@cache
def _table() -> dict[str, Any]:
    text = files("memserve_vllm").joinpath("memory.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


@lru_cache(maxsize=4096)
def fact(name: str, version: str, card: str = "", sm: int | None = None, total: int = 0) -> Mapping[str, Any]:
    """The first row of the table `name` that speaks of this version on this card."""
    for row in _table()[name]:
        if _speaks(row, version, card, sm, total):
            found: Mapping[str, Any] = row
            return found
    raise LookupError(f"memory.json: no row of {name!r} covers vLLM {version} on {card}")


def card_fact(name: str, version: str, card: Card) -> Mapping[str, Any]:
    """`fact` for a card."""
    return fact(name, version, card.name, card.sm, card.memory)


def _speaks(row: Mapping[str, Any], version: str, card: str, sm: int | None, total: int) -> bool:
    if not within(version, row.get("since"), row.get("before")):
        return False
    if "cards" in row and not any(card.startswith(name) for name in row["cards"]):
        return False
    if "below_sm" in row and not (sm is not None and sm < row["below_sm"]):
        return False
    return bool(total >= row.get("at_least_gib", 0) * GIB)


def by_ranks(values: Mapping[str, float], ranks: int) -> float:
    """The value of the largest listed number of ranks that is not above `ranks`."""
    listed = [int(key) for key in values if int(key) <= ranks]
    return values[str(max(listed))] if listed else next(iter(values.values()))
