"""Ctrl-C, SIGTERM and SIGHUP during a run: the first stops it cleanly, another one at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
_HANGUP = getattr(signal, "SIGHUP", None)
_SIGNALS = tuple(one for one in (signal.SIGINT, signal.SIGTERM, _HANGUP) if one is not None)
_log = logging.getLogger("memserve.run")


class Stopped(BaseException):
    """Breaks off a blocking read. No Exception, so that the code that is read from cannot swallow it."""


class Interrupts:
    """Signals are caught only in the main thread: elsewhere Python does not allow it."""

    def __init__(self, stop: Callable[[], None], most: int) -> None:
        self._stop = stop
        self._most = most
        self._reading = False
        self._before: dict[int, Any] = {}
        self.caught: int | None = None
        """The first signal that came."""
        self._count = 0
        self._nudged = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number != _HANGUP or signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def next(self, iterator: Iterator[T]) -> T:
        """The next value of an iterator that may block for long; a signal breaks it off."""
        self._reading = True
        try:
            return next(iterator)
        finally:
            self._reading = False

    def nudge(self) -> None:
        """Break off a blocking read because the run has stopped; from any thread."""
        if self._reading and self._before and hasattr(signal, "pthread_kill"):
            self._nudged = True
            with suppress(ProcessLookupError):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def again(self) -> None:
        """Deliver the caught signal to whoever handled it before; the run has ended cleanly."""
        if self.caught == signal.SIGINT:
            raise KeyboardInterrupt
        if self.caught is not None:
            signal.raise_signal(self.caught)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._nudged:
            self._nudged = False
            self._break_off()
            return
        self.caught = self.caught or number
        self._count += 1
        if self._count == 1:
            _log.warning("stopping cleanly; press Ctrl-C again to stop at once")
        self._stop()
        if self._count >= self._most:
            raise KeyboardInterrupt
        self._break_off()

    def _break_off(self) -> None:
        if self._reading:
            self._reading = False
            raise Stopped
