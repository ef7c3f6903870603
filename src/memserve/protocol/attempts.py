"""Who hears of every attempt that a client makes for one request, and says when the next may go out."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from memserve.errors import MemserveError


class AttemptObserver(Protocol):
    """Set for the task that asks: `observer.set(...)`. A client that asks again by itself calls both."""

    async def before(self, limit: float) -> None:
        """An attempt that may take `limit` seconds is about to be made: returns when it may go out."""
        ...

    def failed(self, error: MemserveError) -> None:
        """The attempt failed, whether or not another follows; it may have been billed all the same."""
        ...


observer: ContextVar[AttemptObserver | None] = ContextVar("observer", default=None)
