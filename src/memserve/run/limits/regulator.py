"""Decides when the next request may be asked, and what a failure means for it and for the rest."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memserve.errors import ConnectionFailed, MemserveError, RunError, TimedOut
from memserve.protocol import Usage
from memserve.run.limits.circuit_breaker import CircuitBreaker
from memserve.run.limits.error_policy import react
from memserve.run.limits.estimate import Estimate, Tokens
from memserve.run.limits.pace import Limit, Pause, Rate

if TYPE_CHECKING:
    from memserve.run.limits.budget import Spending
    from memserve.run.requests.item import Item

UNPROVEN_PATIENCE = 60.0
"""Seconds of patience with a provider that throttles and has not answered anything yet."""
CHANGE = 60.0
"""What `wait` says when not a clock but an answer has to be waited for."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One attempt that is in flight."""

    item: Item
    sent: float
    tokens: Tokens
    promised: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a failure leads to."""

    failed: list[tuple[Item, Exception]] = field(default_factory=list)
    again: list[Item] = field(default_factory=list)
    abort: Exception | None = None


class Regulator:
    """One provider's limits, pauses and moods, and the caller's budget. Used from one thread."""

    def __init__(self, spending: Spending, *, concurrency: int | None, rpm: float | None, tpm: float | None,
                 patience: float) -> None:  # fmt: skip
        self._spending = spending
        self._patience = patience
        self._limit = Limit(concurrency)
        self._requests, self._tokens = Rate(rpm), Rate(tpm)
        self._pause, self._breaker = Pause(), CircuitBreaker(patience)
        self._estimate = Estimate()
        self._asked: dict[int, int] = {}
        self._answered_at: float | None = None
        self._throttled_since: float | None = None

    @property
    def down(self) -> bool:
        """The server is taken to be down: ask for one request at a time."""
        return self._breaker.open

    def withdraw(self, ticket: Ticket) -> Item:
        """An attempt that was not made after all."""
        self._spending.settle(ticket.promised, None)
        return ticket.item

    def wait(self, item: Item, in_flight: int) -> float:
        """Seconds to wait before asking; 0: now. Raises BudgetSpent when waiting will not help."""
        if in_flight >= (1 if self._breaker.open else self._limit.now):
            return CHANGE
        if not self._spending.affords(self._estimate.of(item)):
            if not in_flight:
                raise self._spending.spent()
            return CHANGE
        now = time.monotonic()
        return max(self._pause.delay(now), self._requests.delay(now), self._tokens.delay(now))

    def begin(self, item: Item) -> Ticket:
        """An attempt starts."""
        tokens, now = self._estimate.of(item), time.monotonic()
        self._requests.spend(now)
        self._tokens.spend(now, tokens.total)
        return Ticket(item, now, tokens, self._spending.promise(tokens))

    def answered(self, ticket: Ticket, usage: Usage) -> list[tuple[Item, Exception]]:
        """An attempt ended well; what is returned failed for reasons of its own, earlier."""
        now = time.monotonic()
        self._answered_at, self._throttled_since = now, None
        self._asked.pop(ticket.item.index, None)
        self._spending.settle(ticket.promised, usage)
        self._estimate.learn(ticket.item, usage)
        if usage.prompt_tokens is not None:
            counted = usage.prompt_tokens + (usage.completion_tokens or 0)
            self._tokens.correct(counted - ticket.tokens.total)
        self._limit.succeeded()
        self._pause.over()
        return self._breaker.succeeded(now)

    def failed(self, ticket: Ticket, error: Exception, in_flight: int) -> Judgement:
        """An attempt ended badly."""
        ambiguous = isinstance(error, (TimedOut, ConnectionFailed))  # perhaps answered, and billed
        self._spending.settle(ticket.promised, Usage() if ambiguous else None)
        asked = self._asked.pop(ticket.item.index, 0) + 1
        reaction = react(error, worked=self._answered_at is not None, asked=asked)
        if reaction == "abort":
            return Judgement(abort=error)
        if reaction == "again":
            self._asked[ticket.item.index] = asked
            hopeless = self.throttled(error, ticket.sent)
            return Judgement(again=[ticket.item], abort=error if hopeless else None)
        if CircuitBreaker.explains(error):
            return self._suspect(ticket, error, in_flight)
        return Judgement(failed=[(ticket.item, error)])

    def throttled(self, error: Exception, sent: float | None = None) -> bool:
        """The provider wants less: ask less, later. Whether waiting for it has become pointless."""
        now = time.monotonic()
        retry_at = getattr(error, "retry_at", None)
        seconds = None if retry_at is None else max(0.0, retry_at - time.time())
        if seconds is not None and seconds > self._patience:
            return True
        sent = now if sent is None else sent
        self._limit.throttled(sent, now)
        self._pause.until(now, seconds, sent)
        since = self._throttled_since = self._throttled_since or now
        proven = self._answered_at is not None
        return now - since > (self._patience if proven else min(UNPROVEN_PATIENCE, self._patience))

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


def _down(error: Exception) -> MemserveError:
    return RunError(
        f"every request fails, the last with {type(error).__name__}: {str(error)[:200]}",
        hint="run again when the server is back: what failed is asked again",
    )
