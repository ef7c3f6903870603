"""Several generators behind one: the next answers when one is out, too expensive or refuses; or all share."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import fields, replace
from functools import cached_property
from math import inf
from typing import Any, Literal
from warnings import warn

from memserve.client.async_driver import AsyncDriver
from memserve.client.generation import Generator
from memserve.errors import (
    BadRequest,
    Cancelled,
    ContentRefused,
    ContextOverflow,
    InvalidInput,
    MemserveError,
    RemoteError,
    Throttled,
    TimedOut,
    Unsupported,
)
from memserve.http.address import is_loopback, parse
from memserve.options import spelled
from memserve.protocol import Capabilities, Completion, Delta, Request, observer
from memserve.protocol.engines import AttemptObserver
from memserve.run.limits.budget import CHARACTERS_PER_TOKEN, PART, TEMPLATE, dearest, limit, measure, price_of
from memserve.speed.prices import Price

Policy = Literal["fallback", "balance"]
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds that a failed generator is passed over: doubled with each failure after another."""
_OF_THE_REQUEST = (BadRequest, ContentRefused, ContextOverflow, Unsupported)
"""What says nothing against the generator: another may still answer."""
_OWN = ("backend", "engine", "model", "device")
_NOT_ROUTED = {
    "backend": "route", "engine": None, "device": None, "score": False, "count_tokens": False,
    "tokenizer": False, "batches": False, "notes": (),
}  # fmt: skip


@spelled
def route(generators: Iterable[Generator], policy: Policy = "fallback", *, most_usd: float | None = None,
          concurrency: int = 256) -> Generator:  # fmt: skip
    """One generator out of several, all of which it closes.

    `fallback`: the first answers; the next where it is out, refuses, or where an answer could cost more than
    `most_usd`. `balance`: several servers of one model share the work by their own speed. `Completion.by`
    says who answered; what can be asked is what all of them can do.
    """
    members = list(generators) if isinstance(generators, Iterable) else []
    if policy not in ("fallback", "balance"):
        raise InvalidInput(f"policy is 'fallback' or 'balance', not {policy!r}")
    if not members or not all(callable(getattr(one, "agenerate", None)) for one in members):
        raise InvalidInput("route takes a list of open generators", hint="memserve.generator(...) opens one")
    if most_usd is not None and not (isinstance(most_usd, (int, float)) and 0 <= most_usd < inf):
        raise InvalidInput(f"most_usd is an amount of dollars, not {most_usd!r}")
    named_members = [*map(Member, _names(members), members)]
    unpriced = [one.name for one in named_members if one.price is None and one.is_remote]
    if most_usd is not None and unpriced:
        warn(f"no price is known of {', '.join(unpriced)}: most_usd does not bound it", stacklevel=2)
    return Route(RouteEngine(named_members, policy, most_usd), concurrency)


class Route(Generator):
    """A generator that others stand behind."""

    def __init__(self, engine: RouteEngine, concurrency: int) -> None:
        super().__init__(engine, AsyncDriver(engine, concurrency))
        self._members = engine.members

    @property
    def prices(self) -> dict[str, Price]:
        """What each member's answers cost, where it is known, by the name in `Completion.by`."""
        found = {member.name: member.price for member in self._members}
        own = {name: price for name, price in found.items() if price is not None}
        inner = [one.generator.prices for one in self._members if isinstance(one.generator, Route)]
        return {name: price for prices in (*inner, own) for name, price in prices.items()}


def open_all(primary: Sequence[Callable[[], Generator]], fallbacks: Sequence[Callable[[], Generator]],
             ) -> Generator:  # fmt: skip
    """What a command names: several servers share the work, and what stands behind them answers in need."""
    with ExitStack() as opened:
        first = [opened.enter_context(one()) for one in primary]
        rest = [opened.enter_context(one()) for one in fallbacks]
        opened.pop_all()
    shared = first[0] if len(first) == 1 else route(first, "balance")
    return route([shared, *rest]) if rest else shared


def named(words: str) -> dict[str, Any]:
    """What opens BACKEND:MODEL or BACKEND:MODEL@URL."""
    backend, _, rest = words.partition(":")
    model, _, url = rest.partition("@http")
    tail = "" if url or "@" not in model else model.rpartition("@")[2]
    if not backend or not model or model.endswith("@") or "/" in tail or ":" in tail:
        raise InvalidInput(
            f"{words[:60]!r} is not BACKEND:MODEL", hint="openai:gpt-5-mini, vllm:NAME@http://HOST/v1"
        )
    where = {"base_url": f"http{url}"} if url else {}
    return {"model_or_plan": model, "backend": backend, **where}


class Member:
    """One generator of a route, and how it has been doing."""

    def __init__(self, name: str, generator: Generator) -> None:
        self.name = name
        self.generator = generator
        self.in_flight = 0
        self.seconds: float | None = None
        """What its answers took of late."""
        self._failures = 0
        self._down_until = 0.0

    @cached_property
    def price(self) -> Price | None:
        """Its model's, where it is known."""
        if isinstance(self.generator, Route):
            return dearest(self.generator.prices.values())
        known = self.generator.capabilities
        return price_of(known.model, known.backend)

    @property
    def is_remote(self) -> bool:
        """Whether another machine answers, which may ask for money."""
        address = getattr(self.generator, "identity", {}).get("base_url")
        return address is not None and not is_loopback(parse(address).host)

    @property
    def up(self) -> bool:
        """Whether it is worth asking: after a failure and a pause, one request finds out."""
        return time.monotonic() >= self._down_until and not (self._failures and self.in_flight)

    def load(self, seconds: float) -> float:
        """How long one more request would take it, roughly; `seconds` where it has not answered yet."""
        return (self.in_flight + 1) * (self.seconds or seconds)

    def most_usd(self, request: Request) -> float:
        """Dollars that its answer can cost; 0 where no price is known."""
        parts, characters = measure(request)
        prompt = characters / CHARACTERS_PER_TOKEN + TEMPLATE + parts * PART
        return self.price.of_prompt(prompt).of_tokens(prompt, limit(request)) if self.price else 0.0

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Keep count of one request, of how long it takes and of whether it fails."""
        began, self.in_flight = time.monotonic(), self.in_flight + 1
        try:
            yield
        except MemserveError as error:
            if not isinstance(error, (InvalidInput, Cancelled, *_OF_THE_REQUEST)):
                self._down_until = time.monotonic() + min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**self._failures)
                self._failures += 1
            raise
        else:
            took = time.monotonic() - began
            self.seconds = took if self.seconds is None else 0.8 * self.seconds + 0.2 * took
            self._failures = 0
        finally:
            self.in_flight -= 1


class RouteEngine:
    """Hands each request to one of its members, and on to the next where that is worth it."""

    any_loop = True
    fills_max_tokens = True

    def __init__(self, members: Sequence[Member], policy: Policy, most_usd: float | None) -> None:
        self.members = members
        self._policy = policy
        self._most_usd = most_usd

    @property
    def capabilities(self) -> Capabilities:
        """What every member can do."""
        return _common([member.generator.capabilities for member in self.members])

    @property
    def identity(self) -> dict[str, str]:
        """Who may answer."""
        return {"policy": self._policy, **{f"member{i}": one.name for i, one in enumerate(self.members)}}

    async def complete(self, request: Request) -> Completion:
        """The answer of the first member that gives one."""
        refusal: Completion | None = None
        tried: list[tuple[Member, MemserveError]] = []
        for member, others in self._in_turn(request):
            try:
                with member.asked(), _observing(self._may_leave(others)):
                    answer = await member.generator.agenerate(replace(request, reask=0))
            except MemserveError as error:
                tried.append((member, _passed_on(error)))
                continue
            answer = replace(
                answer, by=answer.by or member.name, model=answer.model or member.generator.capabilities.model
            )
            if answer.finish_reason != "content_filter":
                return answer
            refusal = refusal or answer
        if refusal is not None:
            return refusal
        raise _failed(tried)

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """The same in pieces; a stream that broke after its first piece is not begun by another."""
        tried: list[tuple[Member, MemserveError]] = []
        refusal: Delta | None = None
        for member, others in self._in_turn(request):
            begun = False
            try:
                with member.asked(), _observing(self._may_leave(others)):
                    async with aclosing(member.generator.astream(replace(request, reask=0))) as deltas:  # type: ignore[type-var]
                        async for delta in deltas:
                            told = replace(delta, by=delta.by or member.name)
                            if not begun and delta.finish_reason == "content_filter":
                                refusal = refusal or told
                                break
                            begun = True
                            yield told
                        else:
                            return
            except MemserveError as error:
                if begun:
                    raise
                tried.append((member, _passed_on(error)))
        if refusal is None:
            raise _failed(tried)
        yield refusal

    def close(self) -> None:
        """Close every member."""
        for member in self.members:
            member.generator.close()

    def _in_turn(self, request: Request) -> Iterator[tuple[Member, int]]:
        """Members, the best first, each with how many could be asked after it."""
        left = [one for one in self.members if self._affords(one, request)]
        if not left:
            dear = min(one.most_usd(request) for one in self.members)
            raise InvalidInput(f"an answer may cost ${dear:.4f}, and most_usd is ${self._most_usd or 0:.4f}")
        while left:
            up = [one for one in left if one.up] or left
            best = up[0] if self._policy == "fallback" else min(up, key=self._rank)
            left.remove(best)
            yield best, len(left)

    def _rank(self, member: Member) -> tuple[float, int]:
        known = [one.seconds for one in self.members if one.seconds is not None]
        return member.load(min(known, default=1.0)), member.in_flight

    def _affords(self, member: Member, request: Request) -> bool:
        return self._most_usd is None or member.most_usd(request) <= self._most_usd

    def _may_leave(self, others: int) -> Literal["at once", "when it is out", "never"]:
        if not others:
            return "never"
        return "at once" if self._policy == "balance" else "when it is out"


class _Leaving:
    """Ends a member's own attempts after the first failure that another member need not share."""

    def __init__(self, outer: AttemptObserver | None, leaves: str) -> None:
        self._outer = outer
        self._leaves = leaves

    async def before(self, limit: float) -> None:
        if self._outer is not None:
            await self._outer.before(limit)

    def failed(self, error: MemserveError) -> None:
        leaves = self._leaves == "at once" or (self._leaves != "never" and not isinstance(error, Throttled))
        if self._outer is not None and (isinstance(error, TimedOut) or not leaves):  # it may have been billed
            self._outer.failed(error)
        if leaves and error.retryable:
            raise error


@contextmanager
def _observing(leaves: str) -> Iterator[None]:
    token = observer.set(_Leaving(observer.get(), leaves))
    try:
        yield
    finally:
        observer.reset(token)


def _passed_on(error: MemserveError) -> MemserveError:
    """The error, where another member may answer; raised where the caller's words are what is wrong."""
    if isinstance(error, Unsupported) or not isinstance(error, (Cancelled, InvalidInput)):
        return error
    raise error


def _failed(tried: Sequence[tuple[Member, MemserveError]]) -> MemserveError:
    """The error of a request that nobody answered: one that is worth asking again, if there is one."""
    _, error = next((pair for pair in tried if pair[1].retryable), tried[-1])
    others = [f"{member.name}: {type(other).__name__}" for member, other in tried if other is not error]
    if others and isinstance(error, RemoteError):
        error.hint = "; ".join(filter(None, [error.hint, "so did " + ", ".join(others)]))
    return error


def _names(generators: Sequence[Generator]) -> list[str]:
    """BACKEND:MODEL each; with the address, or a number, where that is not enough."""
    short = [f"{one.capabilities.backend}:{one.capabilities.model or ''}" for one in generators]
    where = [getattr(one, "identity", {}).get("base_url") or place for place, one in enumerate(generators, 1)]
    long = [f"{name}@{address}" for name, address in zip(short, where, strict=True)]
    return [name if short.count(name) == 1 else long[place] for place, name in enumerate(short)]


def _common(known: Sequence[Capabilities]) -> Capabilities:
    """What all can do: the least of numbers, what sets share, true where it is true of all."""
    first = known[0]
    values = {part.name: [getattr(one, part.name) for one in known] for part in fields(Capabilities)}
    shared = {name: _least(found) for name, found in values.items() if name not in _OWN}
    models = list(dict.fromkeys(one.model for one in known if one.model))
    return replace(first, **{**shared, **_NOT_ROUTED, "model": " | ".join(models) or None})


def _least(found: Sequence[Any]) -> Any:
    if isinstance(found[0], frozenset):
        return frozenset.intersection(*found)
    numbers = [value for value in found if value is not None]
    return min(numbers, default=None)
