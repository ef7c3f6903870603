"""Who may use an engine that does one thing at a time, with streams open or not."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from memserve.protocol import Delta


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
