"""A circuit breaker: when everything fails, stop asking instead of failing the whole queue."""

from typing import Literal

from memserve.errors import ConnectionFailed, EngineFailed, ServerFailed, TimedOut
from memserve.run.requests.item import Item

STREAK = 50
"""Failures without one answer between them that make an outage (or twice as many as are in flight)."""
OUTAGES = (ConnectionFailed, ServerFailed, TimedOut, EngineFailed)

Finding = Literal["held", "wait", "hopeless"]


class CircuitBreaker:
    """Holds back failures that an outage would explain, until an answer or a streak tells what they were."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._held: list[tuple[Item, Exception]] = []
        self._streak = 0
        self._last_success: float | None = None
        self.open = False
        """The server is taken to be down: one request at a time finds out when it is back."""

    @staticmethod
    def explains(error: Exception) -> bool:
        """Whether a dead server would look like this."""
        return isinstance(error, OUTAGES)

    def succeeded(self, now: float) -> list[tuple[Item, Exception]]:
        """An answer came: what was held failed for reasons of its own."""
        self._last_success, self._streak, self.open = now, 0, False
        return self.release()

    def failed(self, item: Item, error: Exception, in_flight: int, now: float) -> Finding:
        """Hold a failure back; say whether to go on, to wait and ask again, or to give up."""
        self._held.append((item, error))
        self._streak += 1
        if not self.open and self._streak < max(STREAK, 2 * in_flight):
            return "held"
        if self._last_success is None or now - self._last_success > self._patience:
            return "hopeless"
        self.open = True
        return "wait"

    def release(self) -> list[tuple[Item, Exception]]:
        """Everything that was held."""
        held, self._held = self._held, []
        return held
