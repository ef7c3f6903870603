"""What failures mean for a run: one, whether it is asked again; many, whether the server is down."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from memserve.errors import (
    AuthenticationFailed,
    BackendMissing,
    BadAnswer,
    Closed,
    ConnectionFailed,
    EngineFailed,
    MemserveError,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RunError,
    ServerFailed,
    Throttled,
    TimedOut,
)
from memserve.http.transport import ProxyRefused, Refused, Stale, Untrusted
from memserve.protocol import Usage
from memserve.run.limits.budget import Kind, Spending, Tokens
from memserve.run.limits.concurrency import Concurrency
from memserve.run.limits.pace import AcceptedRate, InFlight, Pause, Rate, Ticket
from memserve.run.requests import Item

STREAK = 50
"""Failures without one answer between them that make an outage (or twice as many as are in flight)."""
OUTAGES = (ConnectionFailed, ServerFailed, TimedOut, EngineFailed)

Finding = Literal["held", "wait", "hopeless"]


class CircuitBreaker:
    """Holds back failures that an outage would explain, until an answer or a streak tells what they were."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._held: list[tuple[Item, Exception]] = []
        self._streak = 0
        self._last_success: float | None = None
        self.open = False
        """The server is taken to be down: one request at a time finds out when it is back."""

    @staticmethod
    def explains(error: Exception) -> bool:
        """Whether a dead server would look like this."""
        return isinstance(error, OUTAGES)

    def succeeded(self, now: float) -> list[tuple[Item, Exception]]:
        """An answer came: what was held failed for reasons of its own."""
        self._last_success, self._streak, self.open = now, 0, False
        return self.release()

    def failed(self, item: Item, error: Exception, in_flight: int, now: float) -> Finding:
        """Hold a failure back; say whether to go on, to wait and ask again, or to give up."""
        self._held.append((item, error))
        self._streak += 1
        if not self.open and self._streak < max(STREAK, 2 * in_flight):
            return "held"
        if self._last_success is None or now - self._last_success > self._patience:
            return "hopeless"
        self.open = True
        return "wait"

    def release(self) -> list[tuple[Item, Exception]]:
        """Everything that was held."""
        held, self._held = self._held, []
        return held


Reaction = Literal["fail", "again", "abort"]
ABORT = (QuotaExceeded, AuthenticationFailed, BackendMissing, Closed, RunError)
"""Whatever is asked next would end the same way, and some keys lock after a few refusals."""
ABORT_UNTIL_FIRST_ANSWER = (PermissionDenied, NotFound)
"""A wrong model or a missing right, unless other requests have shown that it works."""
AGAIN = (Throttled, Overloaded)
MOST_AGAIN = 8
"""How often one item is asked again because of throttling, while others are answered."""
NOT_BILLED = (Refused, Stale, Untrusted, ProxyRefused)
"""Nothing of these reached a model."""


def may_be_billed(error: Exception) -> bool:
    """Whether a provider may have answered, and counted, an attempt that failed here."""
    if isinstance(error, ServerFailed):
        return error.status == 200  # an answer that was broken off
    return isinstance(error, (TimedOut, ConnectionFailed, BadAnswer)) and not isinstance(error, NOT_BILLED)


def react(error: Exception, *, worked: bool, asked: int) -> Reaction:
    """`worked`: something was answered in this run; `asked`: how often this item was."""
    if isinstance(error, ABORT) or (not worked and isinstance(error, ABORT_UNTIL_FIRST_ANSWER)):
        return "abort"
    if isinstance(error, AGAIN):
        return "again" if not worked or asked <= MOST_AGAIN else "fail"
    return "fail"


UNPROVEN_PATIENCE = 60.0
"""Seconds of patience with a provider that throttles and has not answered anything yet."""
CHANGE = 60.0
"""What `wait` says when not a clock but an answer has to be waited for."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a failure leads to."""

    failed: list[tuple[Item, Exception]] = field(default_factory=list)
    again: list[Item] = field(default_factory=list)
    abort: Exception | None = None


class Regulator:
    """One provider's limits and pauses, and the caller's budget. Used from one thread."""

    def __init__(self, spending: Spending, *, concurrency: int | None, rpm: float | None, tpm: float | None,
                 patience: float) -> None:  # fmt: skip
        self._spending = spending
        self._patience = patience
        self._concurrency = Concurrency(concurrency)
        self._flight = InFlight()
        self._requests, self._tokens = Rate(rpm), Rate(tpm)
        self._accepted, self._let_through = AcceptedRate(), Rate(None)
        self._pause, self._breaker = Pause(), CircuitBreaker(patience)
        self._estimate, self._of_kind = spending.estimate, Counter[Kind]()
        self._asked: dict[int, int] = {}
        self._answered_at: float | None = None
        self._throttled_since: float | None = None

    @property
    def down(self) -> bool:
        """The server is taken to be down: ask for one request at a time."""
        return self._breaker.open

    @property
    def in_flight(self) -> int:
        """Attempts that the server is at work on, or is likely to be."""
        self._flight.expire(time.monotonic())
        return len(self._flight)

    def withdraw(self, ticket: Ticket) -> Item:
        """An attempt that was not made after all."""
        self._close(ticket, None)
        return ticket.item

    def abandon(self, ticket: Ticket) -> None:
        """Nobody waits for an attempt, which may be billed all the same."""
        if ticket.open:
            self._close(ticket, Usage())

    def wait(self, item: Item, in_flight: int) -> float:
        """Seconds to wait before asking; 0: now. Raises BudgetSpent when waiting will not help."""
        if in_flight >= (1 if self._breaker.open else self._concurrency.now):
            return CHANGE
        tokens = self._estimate.of(item)
        if in_flight and self._spending.limited and not self._confirmed(tokens):
            return CHANGE
        if not self._spending.affords(tokens):
            if not in_flight:
                raise self._spending.spent()
            return CHANGE
        now = time.monotonic()
        self._let_through.keep_to(self._accepted.per_second(now))
        rates = (self._requests, self._tokens, self._let_through)
        return max(self._pause.delay(now), *(rate.delay(now) for rate in rates))

    def begin(self, item: Item) -> Ticket:
        """The first attempt at a request starts."""
        ticket = Ticket(item)
        self.attempt(ticket)
        return ticket

    def attempt(self, ticket: Ticket) -> None:
        """An attempt starts."""
        now = time.monotonic()
        ticket.sent, ticket.tokens = now, self._estimate.of(ticket.item)
        ticket.promised = self._spending.promise(ticket.tokens)
        ticket.number = self._accepted.send(now)
        self._let_through.spend(now)
        self._requests.spend(now)
        self._tokens.spend(now, ticket.tokens.total)
        self._flight.add(ticket)
        self._of_kind[ticket.tokens.kind] += 1

    def may_repeat(self, ticket: Ticket) -> bool:
        """Whether the server has likely ended its work on the attempt before."""
        return ticket.free_at <= time.monotonic()

    def answered(self, ticket: Ticket, usage: Usage) -> list[tuple[Item, Exception]]:
        """An attempt ended well; what is returned failed for reasons of its own, earlier."""
        now = time.monotonic()
        self._answered_at, self._throttled_since = now, None
        self._asked.pop(ticket.item.index, None)
        self._concurrency.answered(ticket.sent, now, ticket.limit, self.in_flight)
        self._close(ticket, usage)
        self._flight.answered(ticket.sent, now)
        self._estimate.learn(ticket.item, usage)
        if usage.prompt_tokens is not None:
            counted = usage.prompt_tokens + (usage.completion_tokens or 0)
            self._tokens.correct(counted - ticket.tokens.total)
        self._pause.over()
        return self._breaker.succeeded(now)

    def attempt_failed(self, ticket: Ticket, error: Exception) -> None:
        """One attempt ended badly, whether or not the client makes another."""
        if not ticket.open:
            return
        self._close(ticket, Usage() if may_be_billed(error) else None)
        now = time.monotonic()
        if isinstance(error, TimedOut):
            self._concurrency.lower(ticket.sent, now)
            self._flight.give_up(ticket, now)
        elif isinstance(error, AGAIN):
            self._slow_down(ticket, error, now)

    def failed(self, ticket: Ticket, error: Exception, in_flight: int) -> Judgement:
        """A request ended badly: the client gave it up."""
        self.attempt_failed(ticket, error)
        asked = self._asked.pop(ticket.item.index, 0) + 1
        reaction = react(error, worked=self._answered_at is not None, asked=asked)
        if reaction == "abort":
            return Judgement(abort=error)
        if reaction == "again":
            self._asked[ticket.item.index] = asked
            return Judgement(again=[ticket.item], abort=error if self._is_hopeless(error) else None)
        if CircuitBreaker.explains(error):
            return self._suspect(ticket, error, in_flight)
        return Judgement(failed=[(ticket.item, error)])

    def _confirmed(self, tokens: Tokens) -> bool:
        """Whether one more of a kind may be in flight: twice as many as its answers have told the cost of."""
        return self._of_kind[tokens.kind] < max(1, 2 * self._estimate.answers(tokens.kind))

    def _close(self, ticket: Ticket, usage: Usage | None) -> None:
        if ticket.open:
            self._of_kind[ticket.tokens.kind] -= 1
        self._flight.remove(ticket)
        self._spending.settle(ticket.promised, usage)

    def _slow_down(self, ticket: Ticket, error: Exception, now: float) -> None:
        """The provider wants less: ask less, later. What it refuses together counts once."""
        self._throttled_since = self._throttled_since or now
        seconds = _asked_for(error)
        if isinstance(error, Throttled):
            own = self._accepted.refuse(ticket.number, ticket.sent, now)
            seconds = own if seconds is None else seconds
            if seconds is not None and seconds <= self._patience:
                self._pause.until(now, seconds, ticket.sent)
            if self._accepted.per_second(now) is not None:
                return  # the rate is what is too high, not the number in flight
        elif seconds is None or seconds <= self._patience:
            self._pause.until(now, seconds, ticket.sent)
        self._concurrency.lower(ticket.sent, now)

    def _is_hopeless(self, error: Exception) -> bool:
        """Whether waiting for the provider has become pointless."""
        seconds = _asked_for(error)
        if seconds is not None and seconds > self._patience:
            return True
        waited = time.monotonic() - (self._throttled_since or inf)
        proven = self._answered_at is not None
        return waited > (self._patience if proven else min(UNPROVEN_PATIENCE, self._patience))

    def left_over(self) -> list[tuple[Item, Exception]]:
        """Failures that were held back until the end."""
        return self._breaker.release()

    def _suspect(self, ticket: Ticket, error: Exception, in_flight: int) -> Judgement:
        finding = self._breaker.failed(ticket.item, error, in_flight, time.monotonic())
        if finding == "held":
            return Judgement()
        if finding == "hopeless":
            return Judgement(abort=_down(error))
        self._pause.until(time.monotonic(), None, ticket.sent)
        return Judgement(again=[held for held, _ in self._breaker.release()])


def _asked_for(error: Exception) -> float | None:
    """Seconds that the provider asks to wait."""
    retry_at = getattr(error, "retry_at", None)
    return None if retry_at is None else max(0.0, retry_at - time.time())


def _down(error: Exception) -> MemserveError:
    return RunError(
        f"every request fails, the last with {type(error).__name__}: {str(error)[:200]}",
        hint="run again when the server is back: what failed is asked again",
    )
