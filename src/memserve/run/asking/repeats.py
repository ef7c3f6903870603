"""Attempts that the client makes by itself: each waits for its turn, and is told to the regulator."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memserve.protocol import observer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memserve.errors import MemserveError
    from memserve.run.asking.loop_event import LoopEvent
    from memserve.run.limits.in_flight import Ticket
    from memserve.run.limits.regulator import Regulator


class Repeats:
    """Requests whose last attempt failed and whose next waits for its turn."""

    def __init__(self, regulator: Regulator, event: LoopEvent) -> None:
        self._regulator = regulator
        self._event = event
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}

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
        """No attempt more: whoever waits is cancelled, and stays unanswered."""
        for turn in self._waiting.values():
            turn.cancel()

    async def wait(self, ticket: Ticket) -> None:
        """Until it is this one's turn."""
        turn = self._waiting[ticket] = asyncio.get_running_loop().create_future()
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
