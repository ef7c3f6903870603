"""Drives an engine that is awaited, one call a request, on a loop of its own thread where one runs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from memserve.client import offers
from memserve.errors import Closed, InvalidInput, MemserveError
from memserve.protocol import (
    Completion,
    Delta,
    Engine,
    Request,
    RunsOnAnyLoop,
    SupportsAsyncClose,
    SupportsClose,
)

T = TypeVar("T")
_STOP_SECONDS = 10.0
_CLOSED = "closed while the answer was on its way"


class BackgroundLoop:
    """A daemon thread that runs one event loop until `stop`."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="memserve-loop", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False in a forked child: threads do not survive a fork."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; an interrupt of the waiting thread cancels it."""
        if threading.current_thread() is self._thread:
            work.close()
            raise InvalidInput("a sync call from inside memserve's own loop would wait for itself")
        future = self._submit(work)
        try:
            return future.result()
        except CancelledError:
            raise Closed(_CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    async def join(self, work: Coroutine[Any, Any, T]) -> T:
        """Await, from another loop, a coroutine that runs on this one."""
        return await asyncio.wrap_future(self._submit(work))

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """A stream outlives its generator, and a fork: what asks for more of it is told so."""
        try:
            if self.alive:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # it was closed in between
            pass
        work.close()
        raise Closed(_CLOSED)

    def stop(self) -> None:
        """Cancel what still runs, end the thread and close the loop."""
        if not self.alive or threading.current_thread() is self._thread:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_end_tasks())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


async def _end_tasks() -> None:
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


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


_QUEUE = 64
_CLOSE_SECONDS = 30.0


class AsyncDriver:
    """Awaits an engine, with at most `concurrency` requests in flight.

    An engine that says `any_loop = True` runs in the caller's own loop; any other stays on one loop of
    the driver's, because most clients and engines are bound to the loop that they were first used in.
    """

    def __init__(self, engine: Engine, concurrency: int) -> None:
        self._engine = engine
        self._concurrency = concurrency
        self._native = isinstance(engine, RunsOnAnyLoop) and engine.any_loop
        self._complete = offers.complete(engine)
        self._loop: BackgroundLoop | None = None
        self._semaphore = Semaphore(concurrency)
        self._pid = os.getpid()

    def run(self, requests: Sequence[Request], *, keep_errors: bool) -> list[Completion]:
        return self._background().run(self._all(requests, keep_errors))

    async def arun(self, requests: Sequence[Request], *, keep_errors: bool) -> list[Completion]:
        return await self._here(self._all(requests, keep_errors))

    def stream(self, request: Request) -> Iterator[Delta]:
        return pull(self._background(), lambda: self._stream(request))

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        if self._native:
            async for delta in self._stream(request):
                yield delta
            return
        loop = self._background()
        pump = await loop.join(Pump.start(lambda: self._stream(request)))
        try:
            while (deltas := await loop.join(pump.take())) is not None:
                for delta in deltas:
                    yield delta
        finally:
            await loop.join(pump.stop())

    def call(self, work: Callable[[], T | Awaitable[T]]) -> T:
        return self._background().run(self._call(work))

    async def acall(self, work: Callable[[], T | Awaitable[T]]) -> T:
        return await self._here(self._call(work))

    def close(self) -> None:
        if self._pid != os.getpid():
            return
        if isinstance(self._engine, SupportsAsyncClose):
            self._background().run(asyncio.wait_for(self._engine.aclose(), _CLOSE_SECONDS))
        elif isinstance(self._engine, SupportsClose):
            self._engine.close()
        if self._loop is not None:
            self._loop.stop()

    def _background(self) -> BackgroundLoop:
        if self._loop is None or not self._loop.alive:
            self._loop = BackgroundLoop()
            self._pid = os.getpid()
        return self._loop

    async def _here(self, work: Coroutine[Any, Any, T]) -> T:
        return await (work if self._native else self._background().join(work))

    async def _one(self, request: Request, keep_errors: bool) -> Completion:
        try:
            async with self._semaphore:
                return await self._complete(request)
        except Exception as broken:
            error = offers.failure(self._engine, broken)
            if keep_errors:
                return Completion(text=None, error=error)
            if error is broken:
                raise
            raise error from broken

    async def _all(self, requests: Sequence[Request], keep_errors: bool) -> list[Completion]:
        if len(requests) == 1:
            return [await self._one(requests[0], keep_errors)]
        answers: list[Completion | None] = [None] * len(requests)
        queue = iter(enumerate(requests))

        async def work() -> None:
            for position, request in queue:
                answers[position] = await self._one(request, keep_errors)

        await all_or_none([work() for _ in range(min(self._concurrency, len(requests)))])
        return [answer for answer in answers if answer is not None]

    async def _stream(self, request: Request) -> AsyncIterator[Delta]:
        try:
            async with self._semaphore:
                async for delta in offers.astream(self._engine)(request):
                    yield delta
        except Exception as broken:
            cause = None if isinstance(broken, MemserveError) else broken
            raise offers.failure(self._engine, broken) from cause

    async def _call(self, work: Callable[[], T | Awaitable[T]]) -> T:
        try:
            result = work()
            return await result if isinstance(result, Awaitable) else result
        except MemserveError:
            raise
        except Exception as broken:
            raise offers.failure(self._engine, broken) from broken


async def all_or_none(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of works side by side; the first failure cancels the rest and is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class Pump:
    """Runs an async iterator in one task of its own and hands its items over, with backpressure."""

    def __init__(self, source: Callable[[], AsyncIterator[Any]]) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(_QUEUE)
        self._task = asyncio.ensure_future(self._fill(source))

    @classmethod
    async def start(cls, source: Callable[[], AsyncIterator[Any]]) -> Pump:
        """Begin, on the loop that runs this coroutine."""
        return cls(source)

    async def _fill(self, source: Callable[[], AsyncIterator[Any]]) -> None:
        last: Any = None
        try:
            async for item in source():
                await self._queue.put([item])
        except Exception as broken:
            last = broken
        await self._queue.put(last)

    async def take(self) -> list[Any] | None:
        """The items that wait, at least one; None at the end."""
        items: list[Any] = []
        while not items or not self._queue.empty():
            head = await self._queue.get()
            if not isinstance(head, list):
                await self._queue.put(head)
                return self._end(items, head)
            items += head
        return items

    def _end(self, items: list[Any], head: Any) -> list[Any] | None:
        if items:
            return items
        if head is not None:
            raise head
        return None

    async def stop(self) -> None:
        """Cancel the iterator and wait for its clean-up."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


def pull(loop: BackgroundLoop, source: Callable[[], AsyncIterator[Any]]) -> Iterator[Any]:
    """Iterate, from a thread, over what an async iterator on a loop yields."""
    pump = loop.run(Pump.start(source))
    try:
        while (items := loop.run(pump.take())) is not None:
            yield from items
    finally:
        if loop.alive:
            loop.run(pump.stop())
