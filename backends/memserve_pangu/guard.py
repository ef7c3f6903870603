"""Keeps a wrong key from being tried again: Huawei locks one after five failures. One asks, others wait."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from copy import copy
from typing import Generic, TypeVar

from memserve.errors import AuthenticationFailed, ConnectionFailed, InvalidInput, MemserveError
from memserve.http import Call, Signer

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


class Guard:
    """The first request goes alone; a refusal of the credentials stops every later one."""

    def __init__(self) -> None:
        self._proven = False
        self._refusal: AuthenticationFailed | None = None
        self._first: Flight[None] = Flight()

    def check(self) -> None:
        """Raise where the credentials were refused before: nothing more is sent with them."""
        if self._refusal is not None:
            said = self._refusal
            raise AuthenticationFailed(
                f"nothing was sent, because the credentials were refused before: {said.message}",
                status=said.status, code=said.code, retry_at=said.retry_at,
                hint="five failures lock a key for five minutes: correct it, then open a new generator",
            )  # fmt: skip

    async def watch(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of a request, sent when it is safe to."""
        results: list[T] = []

        async def first() -> None:
            results.append(await self._watched(work))

        while not self._proven:
            self.check()
            await self._alone(first)
            if results:
                return results[0]
        self.check()
        return await self._watched(work)

    async def _alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work alone; for one who only waits, whatever became of it is its owner's affair."""
        mine = False

        async def owned() -> None:
            nonlocal mine
            mine = True
            await work()

        try:
            await self._first.join(owned)
        except Exception:
            if mine:
                raise

    async def _watched(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            result = await work()
        except AuthenticationFailed as error:
            self._refusal = self._refusal or error
            raise
        except InvalidInput:
            raise  # nothing was sent, so nothing is known
        except Exception:
            self._proven = True  # whatever else went wrong, the key was not refused
            raise
        self._proven = True
        return result


class Guarded:
    """A signer that signs nothing once its credentials were refused."""

    def __init__(self, inner: Signer, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    async def sign(self, call: Call) -> Call:
        self._guard.check()
        return await self._inner.sign(call)

    async def renew(self, error: AuthenticationFailed) -> bool:
        return await self._inner.renew(error)

    def close(self) -> None:
        """Close what the inner signer holds open."""
        close = getattr(self._inner, "close", None)
        if close is not None:
            close()
