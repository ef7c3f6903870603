"""The rate that a provider lets through, where it refuses without saying when to ask again."""

from __future__ import annotations

from math import inf

CAUTION = 0.95
REGAIN_SECONDS = 4.0
"""After so long without a refusal the rate is back at what was measured, and rises ever faster."""
SURE = 10
"""Requests let through between two refusals that make a measurement good by itself."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
TAKEN_BACK = 2.0
"""Requests' worth of time that a bucket is given after a refusal."""


class AcceptedRate:
    """Between two refusals a bucket ran empty twice: what was let through between them is what flows in."""

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
            return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._empty_steps))
        return min(FIRST_PAUSE, TAKEN_BACK / self._measured)

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
