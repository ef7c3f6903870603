"""Reads Google's failures: the reason, the spent quota and the pause that stand in `details`."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from memserve.http.failure import Words

_DAILY = re.compile(r"PerDay|per day", re.IGNORECASE)
_DELAY = re.compile(r"retry in (\d+(?:\.\d+)?)\s*s", re.IGNORECASE)


def refine(words: Words, headers: Mapping[str, str]) -> Words:
    """The failure with its reasons first and its pause in seconds."""
    details = [each for each in words.fields.get("details") or () if isinstance(each, dict)]
    reasons = tuple(str(each["reason"]) for each in details if each.get("reason"))
    daily = any(_DAILY.search(text) for text in (words.message, *_quotas(details)))
    front = ("quota_per_day",) if daily and "RESOURCE_EXHAUSTED" in words.codes else ()
    return replace(words, codes=(*front, *reasons, *words.codes), wait=_wait(words, details))


def _quotas(details: list[dict[str, Any]]) -> Iterator[str]:
    for each in details:
        yield str((each.get("metadata") or {}).get("quota_limit", ""))
        for violation in each.get("violations") or ():
            yield str(violation.get("quotaId", "")) if isinstance(violation, dict) else ""


def _wait(words: Words, details: list[dict[str, Any]]) -> float | None:
    delays = (str(each["retryDelay"]).removesuffix("s") for each in details if "retryDelay" in each)
    stated = next(delays, None)
    spoken = _DELAY.search(words.message)
    try:
        seconds = float(stated if stated is not None else spoken.group(1) if spoken else "")
    except ValueError:
        return words.wait
    return seconds if 0 <= seconds < math.inf else words.wait
