"""How callers' objects reach an engine, whichever of the two kinds its author wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from memserve.client.async_driver import AsyncDriver
from memserve.client.batch_driver import BatchDriver
from memserve.protocol import AsyncEngine, SupportsAsyncEmbed, SupportsAsyncRerank

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from memserve.protocol import Completion, Delta, Engine, Request

T = TypeVar("T")


class Driver(Protocol):
    """How a Generator, Embedder or Reranker reaches its engine."""

    def run(self, requests: Sequence[Request], *, keep_errors: bool) -> list[Completion]: ...
    async def arun(self, requests: Sequence[Request], *, keep_errors: bool) -> list[Completion]: ...
    def stream(self, request: Request) -> Iterator[Delta]: ...
    def astream(self, request: Request) -> AsyncIterator[Delta]: ...
    def call(self, work: Callable[[], T | Awaitable[T]]) -> T: ...
    async def acall(self, work: Callable[[], T | Awaitable[T]]) -> T: ...
    def close(self) -> None: ...


def for_engine(engine: Engine, concurrency: int) -> Driver:
    """The driver that suits the engine: one awaited per request, or one that works in batches."""
    if isinstance(engine, (AsyncEngine, SupportsAsyncEmbed, SupportsAsyncRerank)):
        return AsyncDriver(engine, concurrency)
    return BatchDriver(engine, concurrency)
