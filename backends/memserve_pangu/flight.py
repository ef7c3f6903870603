"""Work that many want and one does: the others wait, on whatever thread and event loop they are."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from copy import copy
from typing import Generic, TypeVar

from memserve.errors import ConnectionFailed, MemserveError

T = TypeVar("T")


class Flight(Generic[T]):
    """At most one call of the work is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Future[T] | None = None

    async def join(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of the call under way, or of a new one."""
        with self._lock:
            mine = self._under_way is None
            if self._under_way is None:
                self._under_way = Future()
            flight = self._under_way
        return await (self._fly(flight, work) if mine else _result(flight))

    async def _fly(self, flight: Future[T], work: Callable[[], Awaitable[T]]) -> T:
        try:
            result = await work()
        except BaseException as broken:
            self._land()
            flight.set_exception(broken if isinstance(broken, MemserveError) else _given_up())
            raise
        self._land()
        flight.set_result(result)
        return result

    def _land(self) -> None:
        with self._lock:
            self._under_way = None


async def _result(flight: Future[T]) -> T:
    """What the flight brings; its error as a copy, since every waiter adds words of its own."""
    try:
        return await asyncio.shield(asyncio.wrap_future(flight))
    except MemserveError as error:
        raise copy(error) from None


def _given_up() -> ConnectionFailed:
    return ConnectionFailed("the request that others waited for was given up")
