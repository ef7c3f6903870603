"""Honest ranges: factors around the likely value, from errors on rows that the calibration had not seen."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from memserve.speed.result import Range
from memserve.speed.roofline import constants, engines, queueing
from memserve.speed.roofline.queueing import Timing
from memserve.speed.roofline.situation import Situation

FIGURES = ("ttft", "tpot", "throughput")
Ranges: TypeAlias = "Mapping[str, Sequence[float]]"
"""Figure, or figure.load -> measured over predicted, 5 % and 95 %."""


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
    return "heavy" if waits or situation.concurrency > queueing.MANY else "light"


def band(situation: Situation, timing: Timing) -> Band:
    """The factors for a situation; wider where the engine was never timed on such a card."""
    facts = engines.facts(situation.engine)
    family = constants.family(situation.setup.card)
    timed = situation.known and family in facts.get("timed_on", ())
    own, others = facts.get("ranges", {}) if timed else {}, constants.data()["ranges"]
    load = kind(situation, timing)
    return Band({name: factors(own, others, name, load) for name in FIGURES}, at_most=not timed)


def factors(own: Ranges, others: Ranges, figure: str, load: str) -> tuple[float, float]:
    """Low and high over likely: from the engine's `own` errors, else from those of engines on other cards."""
    low, high, *_ = own.get(f"{figure}.{load}") or own.get(figure) or others[figure]
    return float(low), float(high)
