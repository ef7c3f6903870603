"""The one retry layer: what a failed attempt is worth, how long a server asks to wait, a pause for all."""

import asyncio
import math
import random
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from memserve.errors import Overloaded, RemoteError, Throttled
from memserve.http.transport import Limits, Refused, Stale

_FIRST = 0.5
_CAP = 8.0
_RESETS = re.compile(r"^(?:[a-z]+-)?ratelimit-(?:.*-)?reset")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE]\+?[0-9]+)?|\.[0-9]+")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EPOCH_FLOOR = 1e9


def asked(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the server asks to wait; None where it said nothing that makes sense."""
    seconds = _number(headers.get("retry-after-ms"), 0.001)
    return _retry_after(headers, now) if seconds is None else seconds


def resets(headers: Mapping[str, str], now: float) -> list[float]:
    """Seconds until limits are whole again: hints, since a part of a limit comes back before."""
    found = [_reset(value, now) for name, value in headers.items() if _counts(name, headers)]
    return [seconds for seconds in found if seconds is not None]


def backoff(attempt: int) -> float:
    """Our own pause before the next attempt: doubling, capped, and spread so that callers do not march."""
    return min(_CAP, _FIRST * 2.0**attempt) * random.uniform(0.5, 1.0)


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    value = headers.get("retry-after")
    seconds = _number(value, 1.0)
    if seconds is not None or value is None:
        return seconds
    until = date(value)
    if until is None:
        return None
    server_now = date(headers.get("date", ""))
    return max(0.0, until - (now if server_now is None else server_now))


def _number(value: str | None, unit: float) -> float | None:
    words = (value or "").strip()
    if not _PLAIN.fullmatch(words):
        return None
    seconds = float(words) * unit
    return seconds if seconds < math.inf else None


def date(value: str) -> float | None:
    """The seconds since the epoch that an HTTP date means; None where it is none."""
    try:
        found = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def _counts(name: str, headers: Mapping[str, str]) -> bool:
    """A reset counts unless its own limit says that something is left."""
    if not _RESETS.match(name):
        return False
    return headers.get(name.replace("reset", "remaining"), "0").strip() in ("0", "-1", "")


def _reset(value: str, now: float) -> float | None:
    words = value.strip().lower()
    seconds = _number(words, 1.0)
    if seconds is not None:
        return max(0.0, seconds - now) if seconds > _EPOCH_FLOOR else seconds
    pieces = _DURATION.findall(words)
    if pieces and "".join(number + unit for number, unit in pieces) == words:
        return sum(float(number) * _UNITS[unit] for number, unit in pieces)
    try:
        moment = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - now) if moment.tzinfo else None


_SPREAD = 0.1
_SPREAD_CAP = 1.0


class Throttle:
    """Until when nobody sends. Plain numbers, so that threads and event loops can share it."""

    def __init__(self) -> None:
        self._until = self._began = 0.0

    @property
    def remaining(self) -> float:
        """Seconds of the pause that are left."""
        return max(0.0, self._until - time.monotonic())

    def pause(self, seconds: float, sent: float | None = None) -> None:
        """Nobody sends for so long; a longer pause in force stays.

        `sent`: when the refused request was, where the server gave no moment. One that was sent before the
        pause in force began is of the same burst, and says nothing new.
        """
        now = time.monotonic()
        if sent is None or sent > self._began:
            self._began = now
            self._until = max(self._until, now + seconds)

    async def wait(self) -> None:
        """Wait the pause out, plus a little of one's own so that callers do not return as one."""
        while (left := self.remaining) > 0:
            await asyncio.sleep(left + random.uniform(0, min(_SPREAD_CAP, _SPREAD * left)))


_REFUSED_CAP = 2.0
_UNKNOWN_SERVER_SECONDS = 10.0
_UNKNOWN_SERVER_SHARE = 2.5


@dataclass
class Seen:
    """What a client has seen of its server: whether it ever answered, and since when it has only refused."""

    answered: bool = False
    refused_since: float | None = None


@dataclass
class Attempts:
    """The attempts of one request: at most `max_retries` + 1 posts, plus one replay of a stale connection.

    A refused connection is no post: it is tried again for as long as the server may take to start, which is
    short for a server that has never answered (the address may be wrong), and all requests wait for that one
    together.
    """

    limits: Limits
    seen: Seen
    failed: int = 0
    renewed: bool = False
    _replayed: bool = False
    _refused: int = 0
    _refused_since: float | None = None
    _of_kind: Counter[str] = field(default_factory=Counter)

    def after(self, error: RemoteError) -> float:
        """Seconds to wait before the next attempt; raises the error where there is none."""
        if not error.retryable:
            raise self._final(error)
        if isinstance(error, Stale) and not self._replayed:
            self._replayed = True
            return 0.0
        if isinstance(error, Refused):
            return self._after_refused(error)
        self.failed += 1
        self._of_kind[type(error).__name__] += 1
        worth = self.limits.max_retries if error.retries is None else error.retries
        if self.failed > self.limits.max_retries or self._of_kind[type(error).__name__] > worth:
            raise self._final(error)
        return self._pause(error)

    def _after_refused(self, error: RemoteError) -> float:
        now = time.monotonic()
        since = now if self._refused_since is None else self._refused_since
        budget = self.limits.startup_seconds
        if not self.seen.answered:
            budget = min(budget, _UNKNOWN_SERVER_SECONDS, _UNKNOWN_SERVER_SHARE * self.limits.timeout)
            first = self.seen.refused_since
            if first is None or now - first > 2 * budget:  # a later call hopes anew
                first = self.seen.refused_since = now
            since = min(since, first)
        self._refused_since = since
        self._refused += 1
        pause = min(_REFUSED_CAP, backoff(self._refused - 1))
        if not self.limits.max_retries or now + pause > since + budget:
            raise error
        return pause

    def _pause(self, error: RemoteError) -> float:
        own = backoff(self.failed - 1)
        if error.retry_at is None:
            return own
        asked = max(0.0, error.retry_at - time.time())
        if asked > self.limits.max_wait:
            return max(own, self._largest_reset(error))
        return max(asked, 0.0 if isinstance(error, (Throttled, Overloaded)) else own)

    def _largest_reset(self, error: RemoteError) -> float:
        """The longest of the waits that are hints and short enough; raises where the wait was demanded."""
        if not error.resets:
            raise self._final(error)
        now = time.time()
        return max((at - now for at in error.resets if at - now <= self.limits.max_wait), default=0.0)

    def _final(self, error: RemoteError) -> RemoteError:
        if self.failed > 1:
            error.message += f" (after {self.failed} attempts)"
        return error
