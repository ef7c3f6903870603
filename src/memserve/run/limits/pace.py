"""How fast a run may ask: so many in flight, so many requests and tokens a minute, and pauses.

The number in flight rises while all goes well and halves when the provider throttles (additive increase,
multiplicative decrease), so that it settles just below what the provider bears.
"""

from __future__ import annotations

import random
from math import inf

CEILING = 256
"""The most in flight where the caller names no number."""
FIRST = 4
"""In flight until the first answer: fewer than the five refusals that lock some providers' keys."""
START = 16
TOLERANCE = 0.02
"""Seconds that a rate may run ahead, so that short sleeps need not be exact."""
PAUSE, LONGEST_PAUSE = 1.0, 60.0


class Rate:
    """So much a minute, spread evenly. What was reserved can be corrected when the true cost is known."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_each = 0.0 if per_minute is None else 60.0 / per_minute
        self._due = 0.0

    def delay(self, now: float) -> float:
        """Seconds until the next start."""
        return max(0.0, self._due - now - TOLERANCE)

    def spend(self, now: float, amount: float = 1.0) -> None:
        """Take an amount; one that exceeds a whole minute's budget delays what follows, and not for ever."""
        self._due = max(self._due, now) + amount * self._seconds_each

    def correct(self, amount: float) -> None:
        """Add to (or give back from) what was taken."""
        self._due += amount * self._seconds_each


class Limit:
    """How many may be in flight."""

    def __init__(self, most: int | None) -> None:
        self._most = most or CEILING
        self._opening = self._most if most else min(START, self._most)
        self._doubling = True
        self._good = 0
        self._lowered_at = -inf
        self.now = min(FIRST, self._most)
        self._opened = False

    def succeeded(self) -> None:
        """An answer came: after as many as are in flight, allow one more (or, at first, twice as many)."""
        if not self._opened:
            self._opened, self.now = True, self._opening
            return
        self._good += 1
        if self._good >= self.now:
            self._good = 0
            self.now = min(self._most, self.now * 2 if self._doubling else self.now + 1)

    def throttled(self, sent: float, now: float) -> bool:
        """Halve, once for all that were in flight together; whether it was this one that halved."""
        if sent <= self._lowered_at:
            return False
        self._lowered_at = now
        self._doubling, self._good = False, 0
        self.now = max(1, self.now // 2)
        return True


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
