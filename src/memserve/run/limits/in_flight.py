"""What is in flight: attempts that wait for an answer, and given-up ones still worked on."""

from collections import deque
from dataclasses import dataclass

from memserve.run.limits.estimate import NOTHING, Tokens
from memserve.run.requests.item import Item

WEIGHT = 0.1
AT_WORK = 4.0
"""A server is taken to be at work on what was given up for at most so many of its time limits."""
LONGEST = 3600.0
"""The time limit of an attempt whose client does not tell."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One request on its way; each attempt at it is sent, and settled, anew."""

    item: Item
    sent: float = 0.0
    tokens: Tokens = NOTHING
    promised: float = 0.0
    number: int = 0
    """Of all attempts of the run."""
    limit: float = LONGEST
    """Seconds that an attempt may take."""
    open: bool = False
    """An attempt is in flight."""
    free_at: float = 0.0
    """Until then the server is likely still at work on the attempt before."""


class InFlight:
    """Attempts in flight, the oldest first."""

    def __init__(self) -> None:
        self._open: dict[Ticket, None] = {}
        self._given_up: deque[tuple[float, Ticket]] = deque()
        self._apart: float | None = None
        self._last = 0.0

    def __len__(self) -> int:
        return len(self._open) + len(self._given_up)

    def add(self, ticket: Ticket) -> None:
        """An attempt was sent."""
        self._last = self._last or ticket.sent
        ticket.open = True
        self._open[ticket] = None

    def remove(self, ticket: Ticket) -> None:
        """An attempt has ended."""
        ticket.open = False
        self._open.pop(ticket, None)

    def give_up(self, ticket: Ticket, now: float) -> None:
        """An attempt timed out: the server is taken to be at work on it until all that it has is answered."""
        self.remove(ticket)
        queue = (len(self) + 1) * (self._apart or 0.0)
        ticket.free_at = now + min(AT_WORK * ticket.limit, max(ticket.limit, queue))
        self._given_up.append((ticket.sent, ticket))

    def answered(self, sent: float, now: float) -> None:
        """What was sent later was answered: the server has passed what was given up before it."""
        apart, self._last = now - self._last, now
        self._apart = apart if self._apart is None else self._apart + WEIGHT * (apart - self._apart)
        while self._given_up and self._given_up[0][0] < sent:
            self._given_up.popleft()[1].free_at = 0.0

    def expire(self, now: float) -> None:
        """Forget what the server can hardly be at work on any more."""
        while self._given_up and self._given_up[0][1].free_at <= now:
            self._given_up.popleft()
