"""A server on a clock that jumps: an hour of overload passes in a second; the client is the real one."""

from __future__ import annotations

import asyncio
import json
import selectors
import time
from collections import Counter, deque
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import memserve
from memserve.run import async_loop
from memserve.run.async_loop import AsyncLoop
from memserve.run.limits.budget import Spending, budget
from memserve.run.options import Options
from memserve.run.requests import read_item

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

START = 1_000_000.0


class Clock(selectors.SelectSelector):
    """Seconds pass as soon as nobody has anything to do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += max(timeout, 1e-6)  # less is lost in the sum
        return ready


@contextmanager
def virtual() -> Iterator[tuple[Clock, asyncio.AbstractEventLoop]]:
    """A loop on a clock that jumps; `time` itself tells that clock's time."""
    clock = Clock()
    loop = asyncio.SelectorEventLoop(clock)
    told = lambda: clock.now  # noqa: E731
    with mock.patch.object(time, "monotonic", told), mock.patch.object(time, "time", told):
        try:
            yield clock, loop
        finally:
            loop.close()


class Reply:
    """The head and the body of an answer."""

    decoded = True

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = {"content-type": "application/json", **(headers or {})}
        self._body = json.dumps(body).encode() if not isinstance(body, bytes) else body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def release(self) -> None:
        """Nothing is held."""


class Server:
    """`slots` requests at a time, `seconds` each, the rest in a queue; it may go on without its clients."""

    def __init__(self, slots: int = 10**9, seconds: float = 1.0, *, finishes: bool = True,
                 usage: Callable[[dict[str, Any], int], tuple[int, int]] | None = None,
                 refuse: Callable[[float], Any] | None = None,
                 broken: Callable[[int], bool] = lambda post: False) -> None:  # fmt: skip
        self.slots, self.seconds, self.finishes = slots, seconds, finishes
        self.usage = usage or (lambda body, post: (10, 5))
        self.refuse = refuse or (lambda now: None)
        self.broken = broken
        self.posts = self.answers = self.billed = self.busy = self.flight = self.most = 0
        self.tells = True
        self.stretch: Callable[[], float] = lambda: self.seconds
        self.working, self.worked_twice = Counter[str](), 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self.first = self.last = 0.0

    def change(self, slots: int) -> None:
        """More or fewer slots from now on."""
        self.slots = slots
        self._next()

    def bill(self, prompt: int, made: int) -> None:
        """What the provider charges."""
        self.billed += prompt + made

    def close(self) -> None:
        """Nothing is open."""

    async def send(self, call: Any) -> Reply:
        """One post."""
        if call.method != "POST":
            return Reply(404, {})
        self.posts += 1
        now = asyncio.get_running_loop().time()
        self.first = self.first or now
        body = json.loads(call.body)
        refused = self.refuse(now)
        if refused is not None:
            return Reply(429, {"error": {"message": "slow down"}}, refused)
        self.flight += 1
        self.most = max(self.most, self.flight)
        try:
            work = asyncio.ensure_future(self._work(body, self.posts))
            return await (asyncio.shield(work) if self.finishes else work)
        finally:
            self.flight -= 1

    async def _work(self, body: dict[str, Any], post: int) -> Reply:
        asked = json.dumps(body["messages"])
        self.worked_twice += self.working[asked] > 0
        self.working[asked] += 1
        try:
            await self._enter()
            await asyncio.sleep(self.stretch())
        finally:
            self.busy -= 1
            self.working[asked] -= 1
            self._next()
        prompt, made = self.usage(body, post)
        self.bill(prompt, made)
        if self.broken(post):
            return Reply(200, b'{"choices": [{"mess')
        self.answers += 1
        self.last = asyncio.get_running_loop().time()
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}
        told = {"prompt_tokens": prompt, "completion_tokens": made} if self.tells else None
        return Reply(200, {"id": "x", "model": "m", "choices": [choice], "usage": told})

    async def _enter(self) -> None:
        if self.busy >= self.slots:
            turn = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            await turn  # whoever lets it in has counted it
        else:
            self.busy += 1

    def _next(self) -> None:
        while self._queue and self.busy < self.slots:
            turn = self._queue.popleft()
            if not turn.done():
                self.busy += 1
                turn.set_result(None)


class Bucket:
    """Lets so many a second through, so many at once; refuses the others, with what `hint` says."""

    def __init__(
        self, a_second: float, at_once: float, hint: Callable[[float], Any] = lambda wait: {}
    ) -> None:
        self.a_second, self.at_once, self.hint = a_second, at_once, hint
        self._has, self._seen = at_once, START

    def __call__(self, now: float) -> Any:
        self._has = min(self.at_once, self._has + (now - self._seen) * self.a_second)
        self._seen = now
        if self._has >= 1:
            self._has -= 1
            return None
        return self.hint((1 - self._has) / self.a_second)


class Results:
    """Counts what a run reports."""

    def __init__(self) -> None:
        self.done, self.failures = 0, []
        self.trouble = None
        self.counts = SimpleNamespace(total=0)

    def answered(self, item: Any, completion: Any, seconds: float) -> None:
        self.done += 1

    def failed(self, item: Any, error: BaseException) -> None:
        self.failures.append((item, error))


def run(server: Server, requests: list[Any], *, at: dict[float, Callable[[], None]] | None = None,
        timeout: float = 600.0, price: Any = None, **options: Any) -> tuple[Results, AsyncLoop]:  # fmt: skip
    """A run's asking loop over the real client, until every request is settled. `at`: what happens when."""
    chosen = Options.of(**options)
    with virtual() as (_, loop), mock.patch.object(async_loop, "MOST_ITEMS", 10**9), mock.patch(
        "memserve.http.aiohttp_transport.AioTransport", lambda **how: server
    ):  # fmt: skip
        generator = memserve.generator("m", backend="openai", base_url="http://127.0.0.1:9/v1",
                                       api_key="sk-x", timeout=timeout)  # fmt: skip
        results = Results()
        asking = AsyncLoop(generator, results, Spending(price, chosen.budget), chosen, lambda: None)
        for index, request in enumerate(requests):
            asking.queue.put(read_item(request, index, {}))
        asking.queue.finish()
        for moment, happens in (at or {}).items():
            loop.call_at(START + moment, happens)
        try:
            loop.run_until_complete(asking.run())
            loop.run_until_complete(asyncio.sleep(100_000))  # what the server goes on with is billed, too
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
    return results, asking


__all__ = ["START", "Bucket", "Clock", "Server", "budget", "run", "virtual"]
