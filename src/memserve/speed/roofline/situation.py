"""What is to be timed: a model, its cards and its load, with nothing left open."""

from typing import NamedTuple

from memserve.speed.roofline import engines, layout, queueing
from memserve.speed.roofline.step import Setup


class Situation(NamedTuple):
    """A model, its cards and its load, made ready to be timed."""

    engine: str
    known: bool
    generation: str | None
    """An older generation of the engine, or None."""
    setup: Setup
    spread: layout.Spread
    load: queueing.Load
    limits: engines.SchedulerLimits
    concurrency: float | None
    """Requests in flight on the whole machine; None: as many as it takes."""

    @property
    def each(self) -> float | None:
        """Requests in flight on one replica."""
        return None if self.concurrency is None else self.concurrency / self.spread.replicas
