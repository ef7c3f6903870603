"""How many requests of one generator are in flight at once, from whichever threads and event loops."""

import asyncio
import os
import threading
from collections import deque


class Semaphore:
    """A semaphore that event loops share: at most so many hold it, and whoever waits longest is next."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begin()

    async def __aenter__(self) -> None:
        if self._pid != os.getpid():
            self._begin()  # what a parent holds is nothing to a forked child
        loop = asyncio.get_running_loop()
        with self._lock:
            if not self._waiting and self._has_room():
                self._held[loop] = self._held.get(loop, 0) + 1
                return
            turn = loop.create_future()
            self._waiting.append((loop, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self._give_up(loop, turn)
            raise

    async def __aexit__(self, *error: object) -> None:
        self._release(asyncio.get_running_loop())

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held: dict[asyncio.AbstractEventLoop, int] = {}
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    def _has_room(self) -> bool:
        if sum(self._held.values()) < self._most:
            return True
        for loop in [loop for loop in self._held if loop.is_closed()]:
            del self._held[loop]  # it ended without letting go
        return sum(self._held.values()) < self._most

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            left = self._held.get(loop, 0) - 1
            if left > 0:
                self._held[loop] = left
            else:
                self._held.pop(loop, None)
            while self._waiting and self._has_room():
                self._admit(*self._waiting.popleft(), here=loop)

    def _admit(self, loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None], *,
               here: asyncio.AbstractEventLoop) -> None:  # fmt: skip
        """Give a place to one who waits, unless its loop is gone. Futures are set on their own loop alone."""
        try:
            if loop is not here:
                loop.call_soon_threadsafe(self._tell, loop, turn)
            elif turn.done():
                return
            else:
                turn.set_result(None)
        except RuntimeError:  # the loop is closed
            return
        self._held[loop] = self._held.get(loop, 0) + 1

    def _tell(self, loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self._release(loop)
        else:
            turn.set_result(None)

    def _give_up(self, loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None]) -> None:
        """Leave the queue; a place that was given in the same moment goes on to the next."""
        with self._lock:
            if (loop, turn) in self._waiting:
                self._waiting.remove((loop, turn))
        if not turn.cancelled():
            self._release(loop)
