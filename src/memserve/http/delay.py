"""How long a server asks to wait: Retry-After in all its forms, and the reset headers of rate limits."""

import math
import random
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

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
