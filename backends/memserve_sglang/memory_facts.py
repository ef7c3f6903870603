"""The rows of memory.json: how SGLang divides a card, by version and card."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from memserve import files
from memserve.engines.rules.version import within
from memserve.hardware.machine import Card

MIB = 1024**2


@cache
def table() -> dict[str, Any]:
    """The whole file."""
    found: dict[str, Any] = files.table(__file__, "memory.json")
    return found


def fact(name: str, version: str, card: Card) -> Mapping[str, Any]:
    """The first row of the table `name` that speaks of this version on this card."""
    for row in table()[name]:
        if not within(version, row.get("since"), row.get("before")):
            continue
        if row.get("vendor", card.vendor) != card.vendor or card.name not in row.get("cards", (card.name,)):
            continue
        if "below_mib" not in row or card.driver_memory < row["below_mib"] * MIB:
            found: Mapping[str, Any] = row
            return found
    raise LookupError(f"memory.json: no row of {name!r} covers SGLang {version} on {card.name}")
