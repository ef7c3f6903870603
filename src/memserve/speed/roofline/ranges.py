"""Honest ranges: factors around the likely value, from errors on rows that the calibration had not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memserve.speed.result import Range
from memserve.speed.roofline import constants, serve

if TYPE_CHECKING:
    from memserve.speed.roofline.serve import Timing
    from memserve.speed.roofline.situation import Situation


FIGURES = ("ttft", "tpot", "throughput")


class Band(NamedTuple):
    """Factors (low, high) for the three figures."""

    factors: dict[str, tuple[float, float]]
    at_most: bool = False

    def ttft(self, likely: float) -> Range:
        """Around a time to first token."""
        return self._around("ttft", likely)

    def tpot(self, likely: float) -> Range:
        """Around a time per token."""
        return self._around("tpot", likely)

    def throughput(self, likely: float) -> Range:
        """Around a throughput."""
        return self._around("throughput", likely)

    def _around(self, figure: str, likely: float) -> Range:
        low, high = self.factors[figure]
        return Range(likely * min(low, 1.0), likely, likely * max(high, 1.0))


def kind(situation: Situation, timing: Timing) -> str:
    """The kind of load that a row belongs to: rows of one kind go wrong alike."""
    if situation.concurrency is None:
        return "most"
    waits = timing.bound != "asked"
    return "heavy" if waits or situation.concurrency > serve.MANY else "light"


def band(situation: Situation, timing: Timing) -> Band:
    """The factors for a situation; wider where the engine was never timed on such a card."""
    table: dict[str, Any] = constants.data()["ranges"]
    family = constants.family(situation.setup.card)
    seen = situation.known and family in constants.data()["seen"].get(situation.engine, ())
    load = kind(situation, timing)
    found = {name: factors(table, situation.engine, name, load, seen=seen) for name in FIGURES}
    return Band(found, at_most=not seen)


def factors(table: dict[str, Any], engine: str, figure: str, load: str, *, seen: bool) -> tuple[float, float]:
    """Low and high over likely; `seen`: the engine was timed on such a card."""
    row = table.get(engine, {}) if seen else {}
    low, high, *_ = row.get(f"{figure}.{load}") or row.get(figure) or table["unseen"][figure]
    return float(low), float(high)
