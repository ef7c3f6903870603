"""A pause that all requests of one client share: when a provider says slow down, it means every caller."""

import asyncio
import random
import time

_SPREAD = 0.1
_SPREAD_CAP = 1.0


class Throttle:
    """Until when nobody sends. Plain numbers, so that threads and event loops can share it."""

    def __init__(self) -> None:
        self._until = self._began = 0.0

    @property
    def remaining(self) -> float:
        """Seconds of the pause that are left."""
        return max(0.0, self._until - time.monotonic())

    def pause(self, seconds: float, sent: float | None = None) -> None:
        """Nobody sends for so long; a longer pause in force stays.

        `sent`: when the refused request was, where the server gave no moment. One that was sent before the
        pause in force began is of the same burst, and says nothing new.
        """
        now = time.monotonic()
        if sent is None or sent > self._began:
            self._began = now
            self._until = max(self._until, now + seconds)

    async def wait(self) -> None:
        """Wait the pause out, plus a little of one's own so that callers do not return as one."""
        while (left := self.remaining) > 0:
            await asyncio.sleep(left + random.uniform(0, min(_SPREAD_CAP, _SPREAD * left)))
