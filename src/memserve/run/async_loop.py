"""The asking loop for engines behind a wire: many in flight, at the pace that the regulator allows."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from memserve.errors import Cancelled, MemserveError
from memserve.protocol import observer
from memserve.run.ask import Asker
from memserve.run.limits.budget import Spending
from memserve.run.limits.concurrency import CEILING
from memserve.run.limits.pace import Ticket
from memserve.run.limits.regulator import Regulator
from memserve.run.options import Options
from memserve.run.prefixes import SharedPrefixes
from memserve.run.requests import Item, arrange
from memserve.run.store.results import Results

MOST_ITEMS = 1024
MOST_CHARACTERS = 16 << 20


class RequestQueue:
    """`put` blocks while enough is waiting; `take_all` never does."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._waiting: deque[Item] = deque()
        self._characters = 0
        self._change = threading.Condition()
        self._closed = False
        self.finished = False
        """Nothing more will be put."""

    @property
    def waiting(self) -> bool:
        """Whether anything can be grabbed."""
        return bool(self._waiting)

    @property
    def exhausted(self) -> bool:
        """Nothing is waiting, and nothing more will come."""
        return self.finished and not self._waiting

    @property
    def replete(self) -> bool:
        """Whether all that fits, or all that there is, is waiting."""
        return self.finished or self._is_full()

    def put(self, item: Item) -> bool:
        """Add an item, waiting for space; False once nobody will take it."""
        with self._change:
            while self._is_full() and not self._closed:
                self._change.wait(1.0)
            if self._closed:
                return False
            self._waiting.append(item)
            self._characters += item.characters
            first = len(self._waiting) == 1
        if first:
            self._notify()
        return True

    def finish(self) -> None:
        """Say that nothing more will come."""
        self.finished = True
        self._notify()

    def take_all(self) -> list[Item]:
        """Everything that is waiting."""
        with self._change:
            items = list(self._waiting)
            self._waiting.clear()
            self._characters = 0
            self._change.notify_all()
        return items

    def close(self) -> None:
        """Take no more; whoever waits in `put` goes on at once."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify_all()

    def _is_full(self) -> bool:
        return len(self._waiting) >= MOST_ITEMS or self._characters >= MOST_CHARACTERS


class LoopEvent:
    """Something changed: set in the loop or from any thread. No task for each wait, unlike asyncio.Event."""

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


GRACE_SECONDS = 10.0
"""How long a stopping run waits for answers that are on their way, and will be paid."""
CANCEL_SECONDS = 2.0
FILL_SECONDS = 0.02
POLL_SECONDS = 1.0
TICK_SECONDS = 0.001
_log = logging.getLogger("memserve.run")


class AsyncLoop:
    """Takes items from its queue, asks for each, and reports every outcome. Runs in a thread of its own."""

    def __init__(self, generator: Any, results: Results, spending: Spending, options: Options,
                 stopped: Callable[[], None]) -> None:  # fmt: skip
        self._event = LoopEvent()
        self.queue = RequestQueue(lambda: self._event.call(self._event.set))
        self.error: BaseException | None = None
        """Why the run ended before its input did."""
        self._generator = generator
        self._results = results
        self._order = options.order
        known = getattr(generator, "capabilities", None)
        least = getattr(known, "cache_marks", 0) if options.cache_marks else 0
        self._prefixes = SharedPrefixes(least) if least else None
        self._stopped = stopped
        self._regulator = Regulator(spending, **options.limits)
        self._asker = Asker(generator, options.concurrency or CEILING)
        self._ready: deque[Item] = deque()
        self._repeats = Repeats(self._regulator, self._event)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = self._cancelling = False

    def stop(self) -> None:
        """Ask no more; a second call does not wait for what is in flight either. From any thread."""
        if self._stopping:
            self._event.call(self._cancel)
        self._stopping = True
        self.queue.close()
        self._event.call(self._event.set)

    async def run(self) -> None:
        """Until everything is settled, or something stops it."""
        self._event.bind()
        try:
            await self._dispatch()
            self._repeats.stop()
            await self._drain(GRACE_SECONDS)
        except Exception as broken:  # whatever it is, it must not look like a finished run
            self._abort(broken)
            self._repeats.stop()
            await self._drain(GRACE_SECONDS)
        finally:
            self._cancel()
            await self._drain(CANCEL_SECONDS)
            self._asker.close()
            self._note(self._regulator.left_over())

    async def _dispatch(self) -> None:
        while not self._stopping:
            repeat = self._repeats.next()
            if repeat is not None:
                if await self._may_ask(repeat.item) and not self._stopping:
                    self._repeats.go(repeat)
            elif not self._ready:
                if self.queue.exhausted and not self._tasks:
                    return
                await self._refill()
            elif (place := self._free()) is None:
                await self._event.wait(POLL_SECONDS)
            elif await self._may_ask(self._ready[place]) and not self._stopping:
                item = self._ready[place]
                del self._ready[place]
                self._start(item)

    def _free(self) -> int | None:
        """The place of the first that need not wait for another to write the prefix that they share."""
        if self._prefixes is None:
            return 0
        return next((place for place, item in enumerate(self._ready) if self._prefixes.free(item)), None)

    async def _refill(self) -> None:
        """Take what was read ahead, in the best order; or wait for something to happen."""
        if self.queue.waiting and not self.queue.replete:
            await asyncio.sleep(FILL_SECONDS)  # the more there is, the better the order
        found = self.queue.take_all()
        if found:
            ordered = arrange(found) if self._order == "prefix" else found
            self._ready.extend(self._prefixes.mark(ordered) if self._prefixes else ordered)
        else:
            await self._event.wait(POLL_SECONDS)

    async def _may_ask(self, item: Item) -> bool:
        if self._results.trouble:
            raise self._results.trouble
        seconds = self._regulator.wait(item, self._regulator.in_flight)
        if seconds > 0:
            await self._event.wait(min(max(seconds, TICK_SECONDS), POLL_SECONDS))
        return seconds <= 0

    def _start(self, item: Item) -> None:
        if self._prefixes:
            self._prefixes.begin(item)
        task = asyncio.get_running_loop().create_task(self._ask(self._regulator.begin(item)))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (broken := task.exception()):
            self._abort(broken)
        self._event.set()

    async def _ask(self, ticket: Ticket) -> None:
        try:
            with self._repeats.observing(ticket):
                completion = await self._asker.ask(ticket.item.request)
        except asyncio.CancelledError:
            if self._cancelling or self._stopping:
                self._regulator.abandon(ticket)
                raise
            self._failed(ticket, Cancelled("the generator cancelled the request by itself"))
        except Exception as error:
            self._failed(ticket, error)
        else:
            if self._prefixes:
                self._prefixes.end(ticket.item, answered=True)
            self._results.answered(ticket.item, completion, time.monotonic() - ticket.sent)
            self._note(self._regulator.answered(ticket, completion.usage))

    def _failed(self, ticket: Ticket, error: Exception) -> None:
        if self._prefixes:
            self._prefixes.end(ticket.item, answered=False)
        judgement = self._regulator.failed(ticket, error, len(self._tasks))
        self._note(judgement.failed)
        self._ready.extendleft(reversed(judgement.again))
        if judgement.abort:
            self._abort(judgement.abort)

    def _note(self, failed: list[tuple[Item, Exception]]) -> None:
        for item, error in failed:
            self._results.failed(item, error)

    def _abort(self, error: BaseException) -> None:
        self.error = self.error or error
        if not self._stopping:
            _log.error("stopping: %s", error)
            self.stop()
            self._stopped()

    def _cancel(self) -> None:
        self._cancelling = True
        for task in self._tasks:
            task.cancel()

    async def _drain(self, seconds: float) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)


class Repeats:
    """Requests whose last attempt failed and whose next waits for its turn."""

    def __init__(self, regulator: Regulator, event: LoopEvent) -> None:
        self._regulator = regulator
        self._event = event
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._stopped = False

    @contextmanager
    def observing(self, ticket: Ticket) -> Iterator[None]:
        """Hear of every attempt that the current task makes."""
        token = observer.set(_Observer(self, ticket, self._regulator, asyncio.get_running_loop()))
        try:
            yield
        finally:
            observer.reset(token)

    def next(self) -> Ticket | None:
        """The first that may be asked again."""
        return next(filter(self._regulator.may_repeat, self._waiting), None)

    def go(self, ticket: Ticket) -> None:
        """Its attempt starts."""
        self._regulator.attempt(ticket)
        turn = self._waiting.pop(ticket)
        if not turn.done():
            turn.set_result(None)

    def stop(self) -> None:
        """No attempt more: whoever waits, or comes to wait, is cancelled, and stays unanswered."""
        self._stopped = True
        for turn in self._waiting.values():
            turn.cancel()

    async def wait(self, ticket: Ticket) -> None:
        """Until it is this one's turn."""
        turn = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        if self._stopped:
            turn.cancel()
        self._event.set()
        try:
            await turn
        finally:
            self._waiting.pop(ticket, None)


class _Observer:
    """One request's attempts. What a client does in another loop than the run's is not paced here."""

    def __init__(self, repeats: Repeats, ticket: Ticket, regulator: Regulator,
                 loop: asyncio.AbstractEventLoop) -> None:  # fmt: skip
        self._repeats = repeats
        self._ticket = ticket
        self._regulator = regulator
        self._loop = loop
        self._first = True

    async def before(self, limit: float) -> None:
        self._ticket.limit = limit
        if asyncio.get_running_loop() is self._loop:
            if not self._ticket.open:
                await self._repeats.wait(self._ticket)
            elif self._first:
                self._ticket.sent = self._loop.time()
        self._first = False

    def failed(self, error: MemserveError) -> None:
        if asyncio.get_running_loop() is self._loop:
            self._regulator.attempt_failed(self._ticket, error)
