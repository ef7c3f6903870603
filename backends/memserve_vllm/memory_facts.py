"""Rows of a backend's memory.json: what a start costs, by engine version and card."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from memserve import files
from memserve.engines.rules.version import within
from memserve.hardware.machine import GIB, Card

KEPT = 4096


class Facts:
    """The memory.json beside a backend's module. vLLM-Ascend keeps its own under the same names."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._found: dict[tuple[str, str, str, int], Mapping[str, Any]] = {}

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The whole file."""
        tables: dict[str, Any] = files.table(self.module, "memory.json")
        return tables

    def row(self, name: str, version: str, card: Card) -> Mapping[str, Any]:
        """The first row of the table `name` that speaks of this version on this card."""
        key = (name, version, card.name, card.memory)
        if key not in self._found:
            if len(self._found) >= KEPT:
                self._found.clear()
            self._found[key] = self._first(name, version, card)
        return self._found[key]

    def _first(self, name: str, version: str, card: Card) -> Mapping[str, Any]:
        for row in self.tables[name]:
            if _speaks(row, version, card):
                found: Mapping[str, Any] = row
                return found
        raise LookupError(f"memory.json of {self.module}: no row of {name!r} covers {version} on {card.name}")


def _speaks(row: Mapping[str, Any], version: str, card: Card) -> bool:
    if not within(version, row.get("since"), row.get("before")):
        return False
    if "cards" in row and not any(f"{card.name}-".startswith(f"{name}-") for name in row["cards"]):
        return False
    if row.get("vendor", card.vendor) != card.vendor:
        return False
    if "below_sm" in row and not (card.sm is not None and card.sm < row["below_sm"]):
        return False
    if "at_least_sm" in row and not (card.sm is not None and card.sm >= row["at_least_sm"]):
        return False
    return bool(card.memory >= row.get("at_least_gib", 0) * GIB)


def by_ranks(values: Mapping[str, float], ranks: int) -> float:
    """The value of the largest listed number of ranks that is not above `ranks`."""
    listed = [int(key) for key in values if int(key) <= ranks]
    return values[str(max(listed))] if listed else next(iter(values.values()))
