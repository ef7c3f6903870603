"""How callers' objects reach an engine, whichever of the two kinds its author wrote."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from memserve.client.async_driver import AsyncDriver
from memserve.client.batch_driver import BatchDriver
from memserve.protocol import (
    AsyncEngine,
    Completion,
    Delta,
    Engine,
    Request,
    SupportsAsyncEmbed,
    SupportsAsyncRerank,
)

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
