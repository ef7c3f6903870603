"""How fast a run may ask: so many requests and tokens a minute, and pauses."""

from __future__ import annotations

import random
from math import inf

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
