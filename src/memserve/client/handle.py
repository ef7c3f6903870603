"""What Generator, Embedder and Reranker have in common: an engine behind a driver, and an end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Protocol, SupportsIndex, TypeVar
from weakref import finalize

from memserve.client.async_driver import AsyncDriver
from memserve.client.batch_driver import BatchDriver
from memserve.errors import Closed, InvalidInput
from memserve.protocol import (
    AsyncEngine,
    Capabilities,
    Completion,
    Delta,
    Engine,
    Request,
    SupportsAsyncEmbed,
    SupportsAsyncRerank,
)

if TYPE_CHECKING:
    from typing_extensions import Self


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


class Handle:
    """An engine that a caller has open: a context manager that frees it at the end."""

    def __init__(self, engine: Engine, driver: Driver) -> None:
        self._engine = engine
        self._driver = driver
        self._finish = finalize(self, driver.close)

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do with the model at hand."""
        return self._engine.capabilities

    def close(self) -> None:
        """Free the engine; again is harmless, use afterwards raises `Closed`."""
        self._finish()

    async def aclose(self) -> None:
        """The same, from async code."""
        import asyncio

        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:  # fmt: skip
        await self.aclose()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        kind = type(self).__name__.lower()
        raise InvalidInput(
            f"a {kind} holds an open engine: it cannot be pickled or copied",
            hint=f"send what opens it: functools.partial(memserve.{kind}, 'model', backend=...)",
        )

    def __repr__(self) -> str:
        state = "" if self._finish.alive else ", closed"
        known = self.capabilities
        return f"{type(self).__name__}(backend={known.backend!r}, model={known.model!r}{state})"

    def _check_open(self) -> None:
        if not self._finish.alive:
            raise Closed(f"this {type(self).__name__.lower()} was closed", hint="open a new one")
