"""How callers' objects reach an engine, whichever of the two kinds its author wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from memserve.client.async_driver import AsyncDriver
from memserve.client.batch_driver import BatchDriver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from memserve.protocol import Completion, Delta, Request


class Driver(Protocol):
    """How a Generator, Embedder or Reranker reaches its engine."""

    def run(self, requests: Sequence[Request], *, keep_errors: bool) -> list[Completion]: ...
    async def arun(self, requests: Sequence[Request], *, keep_errors: bool) -> list[Completion]: ...
    def stream(self, request: Request) -> Iterator[Delta]: ...
    def astream(self, request: Request) -> AsyncIterator[Delta]: ...
    def call(self, method: str, *args: Any, **named: Any) -> Any: ...
    async def acall(self, method: str, *args: Any, **named: Any) -> Any: ...
    def close(self) -> None: ...


def for_engine(engine: Any, concurrency: int) -> Driver:
    """The driver that suits the engine: one awaited per request, or one that works in batches."""
    if any(hasattr(engine, name) for name in ("complete", "aembed", "arerank")):
        return AsyncDriver(engine, concurrency)
    return BatchDriver(engine, concurrency)
