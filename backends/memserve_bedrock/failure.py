"""Reads AWS's failures: the type that stands in a header, and the pause that does."""

import re
from collections.abc import Mapping
from dataclasses import replace

from memserve.http.failure import Words

_DAILY = re.compile(r"tokens per day|requests per day|daily", re.IGNORECASE)
_THROTTLE = "throttlingexception"


def refine(words: Words, headers: Mapping[str, str]) -> Words:
    """The failure with its bare type first: ns#Type and Type:uri are both seen."""
    stated = headers.get("x-amzn-errortype", "")
    found = (code.rpartition("#")[2].partition(":")[0] for code in (stated, *words.codes))
    types = tuple(code for code in found if code)
    daily = any(code.lower() == _THROTTLE for code in types) and _DAILY.search(words.message)
    return replace(words, codes=(*(("quota_per_day",) if daily else ()), *types), wait=_wait(words, headers))


def _wait(words: Words, headers: Mapping[str, str]) -> float | None:
    """x-amz-retry-after counts milliseconds."""
    stated = headers.get("x-amz-retry-after", "").strip()
    return int(stated) / 1000 if stated.isascii() and stated.isdigit() else words.wait
