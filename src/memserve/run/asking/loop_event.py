"""One thing that an event loop waits for: something changed. Set from the loop, or from any thread."""

import asyncio
from collections.abc import Callable
from contextlib import suppress


class LoopEvent:
    """Cheaper than asyncio.Event with wait_for: no task for each wait."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_set = False

    def bind(self) -> None:
        """Belong to the running loop."""
        self._loop = asyncio.get_running_loop()

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the loop, from any thread; nothing happens once the loop has ended."""
        if self._loop is not None:
            with suppress(RuntimeError):  # closed in between
                self._loop.call_soon_threadsafe(function)

    def set(self) -> None:
        """Something changed. In the loop's own thread."""
        self._is_set = True
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Until something changes, or so long."""
        if not self._is_set:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            late = loop.call_later(seconds, self.set)
            try:
                await self._waiter
            finally:
                late.cancel()
                self._waiter = None
        self._is_set = False
