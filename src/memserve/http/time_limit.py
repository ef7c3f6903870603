"""Time limits around a wait."""

import asyncio
import sys
from typing import TypeVar

from memserve.errors import TimedOut

if sys.version_info >= (3, 11):
    from asyncio import timeout as _timeout
else:
    from async_timeout import timeout as _timeout

from collections.abc import Awaitable

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T], what: str) -> T:
    """The result of a wait that may take so many seconds, or TimedOut."""
    try:
        async with _timeout(max(0.0, seconds)):
            return await work
    except (TimeoutError, asyncio.TimeoutError):
        raise TimedOut(what) from None
