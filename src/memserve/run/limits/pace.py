"""How fast a run may ask: so many requests and tokens a minute, and pauses."""

import random
from math import inf

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
