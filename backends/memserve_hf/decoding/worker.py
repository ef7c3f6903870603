"""The one thread that touches the model: callers from any thread hand it jobs and wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import torch

from memserve.errors import Closed, EngineFailed
from memserve_hf.decoding.loop import Loop
from memserve_hf.decoding.row import Job

T = TypeVar("T")
POLL_SECONDS = 1.0
STOP_SECONDS = 30.0


class Worker:
    """Runs the loop while there is work, and single calls between its steps."""

    def __init__(self, loop: Loop | None, name: str) -> None:
        self._loop = loop
        self._jobs: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._main, name=f"memserve-hf-{name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Can it still answer?"""
        return self._thread.is_alive() and not self._closed

    def submit(self, job: Job) -> None:
        """Queue a job; its `finished` is set when it is answered."""
        with self._wake:
            self._open()
            self._jobs.append(job)
            self._wake.notify()

    def call(self, work: Callable[[], T]) -> T:
        """Run a function on the worker's thread and give back what it gives."""
        future: Future[T] = Future()
        with self._wake:
            self._open()
            self._calls.append((work, future))
            self._wake.notify()
        while not wait([future], POLL_SECONDS).done:
            self.check()
        return future.result()

    def check(self) -> None:
        """Raise if nobody will ever answer."""
        if not self._thread.is_alive():
            raise EngineFailed("the worker thread of backend 'hf' has ended")

    def close(self) -> None:
        """Stop after the current step; whatever waits is told so."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS)

    def _open(self) -> None:
        if self._closed:
            raise Closed("this engine was closed")
        self.check()

    def _main(self) -> None:
        with torch.inference_mode():
            while self._wait():
                self._run_calls()
                self._step()
        self._end()

    def _wait(self) -> bool:
        with self._wake:
            while not (self._closed or self._jobs or self._calls or self._busy):
                self._wake.wait(POLL_SECONDS)
            while self._jobs and self._loop:
                self._loop.add(self._jobs.popleft())
        return not self._closed

    @property
    def _busy(self) -> bool:
        return self._loop is not None and self._loop.busy

    def _run_calls(self) -> None:
        while self._calls:
            work, future = self._calls.popleft()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

    def _step(self) -> None:
        if self._loop is None or not self._loop.busy:
            return
        try:
            self._loop.step()
        except Exception as error:
            self._loop.fail(explain(error))

    def _end(self) -> None:
        gone = Closed("the engine was closed before it answered")
        if self._loop:
            for job in self._jobs:
                self._loop.add(job)
            self._loop.fail(gone)
        for _, future in self._calls:
            future.set_exception(gone)


def explain(error: Exception) -> EngineFailed:
    """An engine's own exception in one line."""
    words = (str(error).strip().splitlines() or [""])[0]
    failed = EngineFailed(f"transformers failed: {type(error).__name__}: {words}", hint=_advice(error))
    failed.__cause__ = error
    return failed


def _advice(error: Exception) -> str | None:
    if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
        return "out of memory: lower max_rows, kv_gib, prefix_cache_gib or context"
    return None
