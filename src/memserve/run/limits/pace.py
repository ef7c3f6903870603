"""How fast: requests and tokens a minute, the rate that a provider accepts, what is in flight."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from math import inf

from memserve.run.limits.budget import NOTHING, Tokens
from memserve.run.requests import Item

TOLERANCE = 0.02
"""Seconds that a rate may run ahead, so that short sleeps need not be exact."""
PAUSE, LONGEST_PAUSE = 1.0, 60.0
CAUTION = 0.95
REGAIN_SECONDS = 4.0
"""After so long without a refusal the rate is back at what was measured, and rises ever faster."""
SURE = 10
"""Requests let through between two refusals that make a measurement good by itself."""
TAKEN_BACK = 2.0
"""Requests' worth of time that a bucket is given after a refusal."""


class Rate:
    """So much a minute, spread evenly. What was reserved can be corrected when the true cost is known."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_each = 0.0 if per_minute is None else 60.0 / per_minute
        self._due = 0.0

    def keep_to(self, per_second: float | None) -> None:
        """Another rate from now on."""
        self._seconds_each = 0.0 if per_second is None else 1 / per_second

    def delay(self, now: float) -> float:
        """Seconds until the next start."""
        return max(0.0, self._due - now - TOLERANCE)

    def spend(self, now: float, amount: float = 1.0) -> None:
        """Take an amount; one that exceeds a whole minute's budget delays what follows, and not for ever."""
        self._due = max(self._due, now) + amount * self._seconds_each

    def correct(self, amount: float) -> None:
        """Add to (or give back from) what was taken."""
        self._due += amount * self._seconds_each


class Pause:
    """Nobody asks before a moment: the provider's own, or a growing one of ours."""

    def __init__(self) -> None:
        self._until = 0.0
        self._steps = 0
        self._stepped_at = -inf

    def delay(self, now: float) -> float:
        """Seconds left of the pause."""
        return max(0.0, self._until - now)

    def until(self, now: float, seconds: float | None, sent: float) -> None:
        """Pause for so long as the provider says, or else twice as long as the last time.

        What was `sent` before our last pause began tells nothing about it.
        """
        if seconds is None:
            if sent <= self._stepped_at:
                return
            seconds = min(LONGEST_PAUSE, PAUSE * 2**self._steps)
            self._steps += 1
            self._stepped_at = now
        self._until = max(self._until, now + seconds * (1 + random.random() / 10))

    def over(self) -> None:
        """An answer came: the next pause starts small again."""
        self._steps = 0


class AcceptedRate:
    """What a provider lets through, where it refuses without saying when to ask again.

    Between two refusals a bucket ran empty twice: what was let through between them is what flows in.
    """

    def __init__(self) -> None:
        self._sent = self._refused = 0
        self._mark: tuple[float, int] | None = None
        """The moment from which is counted, and how many were let through until then."""
        self._measured: float | None = None
        self._stepped_at = -inf
        self._empty_steps = 0

    def send(self, now: float) -> int:
        """A request goes out; its number."""
        if self._mark is None:
            self._mark = (now, 0)
        self._sent += 1
        return self._sent

    def refuse(self, number: int, sent: float, now: float) -> float | None:
        """One was refused: seconds to pause; None where it belongs to a burst that was told already."""
        self._refused += 1
        if sent <= self._stepped_at or self._mark is None:
            return None
        passed = number - self._refused
        first = self._stepped_at == -inf  # what was let through until now was in the bucket already
        began, before = self._mark
        self._measure(max(0, passed - before), sent - began)
        self._mark, self._stepped_at = (sent, passed), now
        self._empty_steps = 0 if first or passed > before else self._empty_steps + 1
        if first or self._empty_steps or self._measured is None:
            return float(min(LONGEST_PAUSE, PAUSE * 2**self._empty_steps))
        return min(PAUSE, TAKEN_BACK / self._measured)

    def per_second(self, now: float) -> float | None:
        """What to keep to; None: nobody has refused yet."""
        if self._measured is None:
            return None
        held = (now - self._stepped_at) / REGAIN_SECONDS
        return self._measured * (CAUTION + (1 - CAUTION) * held**3)

    def _measure(self, passed: int, seconds: float) -> None:
        if passed == 0 or seconds <= 0:
            return
        sure = 1.0 if self._measured is None else min(1.0, passed / SURE)
        self._measured = sure * passed / seconds + (1 - sure) * (self._measured or 0.0)


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
