"""Drives an engine that works in batches; requests that arrive while it works form the next batch."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from memserve.client import offers
from memserve.errors import Closed, EngineFailed, MemserveError
from memserve.protocol import (
    Completion,
    Delta,
    Engine,
    JoinsCalls,
    Request,
    SupportsClose,
    SupportsGiveUp,
    SupportsInterrupt,
)


class EngineLock:
    """One caller at a time. Nobody waits for whoever reads a stream.

    A stream holds the engine between two of its deltas, and its reader may be slow, gone, or the very
    thread that asks for something else meanwhile. Whoever is next runs it to its end first; its reader
    finds the rest waiting.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: OpenStream | None = None

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """The engine, for a call that runs from its beginning to its end."""
        with self._lock:
            if self._stream is not None:
                self._stream.drain()
                self._stream = None
            yield

    @contextmanager
    def to_close(self, gone: Exception) -> Iterator[None]:
        """The engine, to close it: the reader of an open stream learns why nothing more comes."""
        with self._lock:
            if self._stream is not None:
                self._stream.end(gone)
                self._stream = None
            yield

    def stream(self, start: Callable[[], Iterator[Delta]]) -> Iterator[Delta]:
        """What the stream yields that `start` opens; the engine is free for others in between."""
        with self.acquire():
            self._stream = stream = OpenStream(start())
        try:
            while self._step(stream):
                yield stream.ready.popleft()
            if stream.error is not None:
                raise stream.error
        finally:
            self._leave(stream)

    def _step(self, stream: OpenStream) -> bool:
        if not stream.ready and not stream.done:
            with self._lock:
                if not stream.ready:
                    stream.advance()
        return bool(stream.ready)

    def _leave(self, stream: OpenStream) -> None:
        """Give the stream up; while somebody else is at the engine, it has ended already or ends there.

        The garbage collector may come by here in the middle of anything, so this waits for nobody.
        """
        stream.unread = True
        if self._lock.acquire(blocking=False):
            try:
                stream.end(None)
                if self._stream is stream:
                    self._stream = None
            finally:
                self._lock.release()


class OpenStream:
    """An open stream: what it has given and nobody has read yet."""

    def __init__(self, source: Iterator[Delta]) -> None:
        self._source: Any = iter(source)
        self.ready: deque[Delta] = deque()
        self.error: Exception | None = None
        self.done = False
        self.unread = False

    def advance(self) -> None:
        """One delta more."""
        if self.done:
            return
        try:
            self.ready.append(next(self._source))
        except StopIteration:
            self.done = True
        except Exception as error:
            self.error, self.done = error, True

    def drain(self) -> None:
        """Run to the end, or give up where nobody reads any more."""
        while not self.done:
            if self.unread:
                self.end(None)
            else:
                self.advance()

    def end(self, error: Exception | None) -> None:
        """Stop here."""
        if not self.done:
            self.error, self.done = error, True
            if hasattr(self._source, "close"):
                self._source.close()


_GATHER_SECONDS = 0.002
_END = object()
T = TypeVar("T")


class BatchDriver:
    """Calls a batch engine from one thread at a time.

    A sync call goes straight to the engine. Awaited requests wait for a worker thread that takes up to
    `concurrency` of them at once, so that many single awaits still make full batches. An engine that says
    `concurrent = True` joins the calls of several threads itself: it is called without a lock.
    """

    def __init__(self, engine: Engine, concurrency: int) -> None:
        self._engine = engine
        self._most = concurrency
        self._concurrent = isinstance(engine, JoinsCalls) and engine.concurrent
        self._generate = offers.generate(engine)
        self._lock = EngineLock()
        self._waiting: deque[tuple[Request, Future[Completion]]] = deque()
        self._wake = threading.Event()
        self._worker: threading.Thread | None = None
        self._closed = False
        self._pid = os.getpid()

    def run(self, requests: Sequence[Request], *, keep_errors: bool) -> list[Completion]:
        try:
            answers = self._batch(requests)
        except MemserveError as error:
            if not keep_errors:
                raise
            return [Completion(text=None, error=error)] * len(requests)
        broken = None if keep_errors else next((a.error for a in answers if a.error is not None), None)
        if broken is not None:
            raise broken
        return answers

    async def arun(self, requests: Sequence[Request], *, keep_errors: bool) -> list[Completion]:
        if len(requests) > 1:
            return await asyncio.to_thread(self.run, requests, keep_errors=keep_errors)
        return [await self._one(request, keep_errors) for request in requests]

    def stream(self, request: Request) -> Iterator[Delta]:
        def start() -> Iterator[Delta]:
            return offers.stream(self._engine)(request)

        try:
            yield from start() if self._concurrent else self._lock.stream(start)
        except Exception as broken:
            raise offers.failure(self._engine, broken) from broken

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        iterator = self.stream(request)
        step: Callable[[], Any] = lambda: next(iterator, _END)  # noqa: E731
        try:
            while (delta := await _whole(step)) is not _END:
                yield delta
        finally:
            await _whole(iterator.close)  # type: ignore[attr-defined]

    def call(self, work: Callable[[], T | Awaitable[T]]) -> T:
        with self._turn():
            try:
                result = work()
                return asyncio.run(_awaited(result)) if isinstance(result, Awaitable) else result
            except MemserveError:
                raise
            except Exception as broken:
                raise offers.failure(self._engine, broken) from broken

    async def acall(self, work: Callable[[], T | Awaitable[T]]) -> T:
        return await asyncio.to_thread(self.call, work)

    def close(self) -> None:
        if self._pid != os.getpid():
            return
        self._closed = True
        self._wake.set()
        if isinstance(self._engine, SupportsInterrupt):
            self._engine.interrupt()
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join()
        with nullcontext() if self._concurrent else self._lock.to_close(_gone()):
            if isinstance(self._engine, SupportsClose):
                self._engine.close()

    def _turn(self) -> AbstractContextManager[None]:
        return nullcontext() if self._concurrent else self._lock.acquire()

    def _batch(self, requests: Sequence[Request]) -> list[Completion]:
        if not requests:
            return []
        with self._turn():
            try:
                answers = list(self._generate(requests))
            except MemserveError:
                raise
            except Exception as broken:
                raise offers.failure(self._engine, broken) from broken
        if len(answers) != len(requests):
            name = self._engine.capabilities.backend
            raise EngineFailed(f"backend {name!r} gave {len(answers)} answers to {len(requests)} requests")
        return answers

    async def _one(self, request: Request, keep_errors: bool) -> Completion:
        future: Future[Completion] = Future()
        self._waiting.append((request, future))
        self._start()
        self._wake.set()
        try:
            answer = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if isinstance(self._engine, SupportsGiveUp):
                self._engine.give_up(request)
            raise
        if answer.error is not None and not keep_errors:
            raise answer.error
        return answer

    def _start(self) -> None:
        if self._worker is None or not self._worker.is_alive():
            self._worker = threading.Thread(target=self._work, name="memserve-batches", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            threading.Event().wait(_GATHER_SECONDS)
            while batch := self._take():
                self._dispatch(batch)
            if self._closed and not self._waiting:
                return

    def _take(self) -> list[tuple[Request, Future[Completion]]]:
        batch: list[tuple[Request, Future[Completion]]] = []
        while self._waiting and len(batch) < self._most:
            item = self._waiting.popleft()
            if not item[1].set_running_or_notify_cancel():
                continue
            if self._closed:
                item[1].set_exception(_gone())
            else:
                batch.append(item)
        return batch

    def _dispatch(self, batch: list[tuple[Request, Future[Completion]]]) -> None:
        if not self._concurrent:
            return self._answer(batch)
        for item in batch:  # each comes back when it is done, whatever the others take
            threading.Thread(target=self._answer, args=([item],), name="memserve-batch", daemon=True).start()
        return None

    def _answer(self, batch: list[tuple[Request, Future[Completion]]]) -> None:
        try:
            answers = self._batch([request for request, _ in batch])
        except MemserveError as error:
            answers = [Completion(text=None, error=error)] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)


async def _awaited(result: Awaitable[T]) -> T:
    return await result


def _gone() -> Closed:
    return Closed("the engine was closed before it answered", hint="open a new one")


async def _whole(work: Callable[[], Any]) -> Any:
    """Run in a thread, and see it through even when cancelled: an iterator is not closed while it works."""
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise
