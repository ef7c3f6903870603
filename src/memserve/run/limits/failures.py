"""What failures mean for a run: one, whether it is asked again; many, whether the server is down."""

from typing import Literal

from memserve.errors import (
    AuthenticationFailed,
    BackendMissing,
    BadAnswer,
    Closed,
    ConnectionFailed,
    EngineFailed,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RunError,
    ServerFailed,
    Throttled,
    TimedOut,
)
from memserve.http.transport import ProxyRefused, Refused, Stale, Untrusted
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


Reaction = Literal["fail", "again", "abort"]
ABORT = (QuotaExceeded, AuthenticationFailed, BackendMissing, Closed, RunError)
"""Whatever is asked next would end the same way, and some keys lock after a few refusals."""
ABORT_UNTIL_FIRST_ANSWER = (PermissionDenied, NotFound)
"""A wrong model or a missing right, unless other requests have shown that it works."""
AGAIN = (Throttled, Overloaded)
MOST_AGAIN = 8
"""How often one item is asked again because of throttling, while others are answered."""
NOT_BILLED = (Refused, Stale, Untrusted, ProxyRefused)
"""Nothing of these reached a model."""


def may_be_billed(error: Exception) -> bool:
    """Whether a provider may have answered, and counted, an attempt that failed here."""
    if isinstance(error, ServerFailed):
        return error.status == 200  # an answer that was broken off
    return isinstance(error, (TimedOut, ConnectionFailed, BadAnswer)) and not isinstance(error, NOT_BILLED)


def react(error: Exception, *, worked: bool, asked: int) -> Reaction:
    """`worked`: something was answered in this run; `asked`: how often this item was."""
    if isinstance(error, ABORT) or (not worked and isinstance(error, ABORT_UNTIL_FIRST_ANSWER)):
        return "abort"
    if isinstance(error, AGAIN):
        return "again" if not worked or asked <= MOST_AGAIN else "fail"
    return "fail"
