"""What Generator, Embedder and Reranker share: a backend found, an engine behind a driver, an end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, SupportsIndex, TypeVar, runtime_checkable
from weakref import finalize

from memserve import registry
from memserve.client.async_driver import AsyncDriver
from memserve.client.batch_driver import BatchDriver
from memserve.errors import BackendMissing, Closed, InvalidInput, Unsupported
from memserve.missing import install_line
from memserve.protocol import (
    AsyncEngine,
    Backend,
    Capabilities,
    Completion,
    Delta,
    Engine,
    HasIdentity,
    Request,
    SupportsAsyncEmbed,
    SupportsAsyncRerank,
    SupportsPlanOptions,
    Task,
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

    @property
    def identity(self) -> dict[str, str]:
        """What answers, without any secret: backend, model, address, revision, as far as they are known."""
        known = self.capabilities
        own = {"backend": known.backend, "engine": known.engine, "model": known.model}
        if isinstance(self._engine, HasIdentity):
            own.update(self._engine.identity)
        return {name: value for name, value in own.items() if value}

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


@runtime_checkable
class Planned(Protocol):
    """A Plan, of which only its `to_dict` is asked."""

    def to_dict(self) -> dict[str, Any]: ...


def open_engine(model_or_plan: object, backend: str | None, task: Task,
                options: Mapping[str, Any]) -> Engine:  # fmt: skip
    """An engine for one task, from a model's name, a Plan, or nothing (the embedded default)."""
    if model_or_plan is None or isinstance(model_or_plan, str):
        name = backend or _default()
        return _can(name, task).open(model_or_plan, task=task, **options)
    if isinstance(model_or_plan, os.PathLike):
        return open_engine(os.fspath(model_or_plan), backend, task, options)
    return _open_plan(model_or_plan, backend, task, options)


def _default() -> str:
    """The backend that says of itself that it answers when none is named."""
    for name in registry.names():
        with suppress(Exception):  # what does not load answers for nobody
            if getattr(registry.find(name), "default", False):
                return name
    remedy = f"{install_line('embedded')}, or name a backend: backend='NAME'"
    raise BackendMissing("default", needs="a model that runs in this process", install=remedy)


def _can(name: str, task: Task) -> Backend:
    """The backend of that name, if it can do the task."""
    found = registry.find(name)
    if task not in found.capabilities.tasks:
        raise Unsupported(name, f"the task {task}")
    return found


def _open_plan(plan: object, backend: str | None, task: Task, options: Mapping[str, Any]) -> Engine:
    if not isinstance(plan, Planned):
        raise InvalidInput(f"a model is a name, a folder or a Plan, not {type(plan).__name__}")
    facts = plan.to_dict()
    choice = facts.get("plan") or facts
    name = backend or choice["backend"]
    found = _can(name, task)
    planned = dict(found.plan_options(facts)) if isinstance(found, SupportsPlanOptions) else {}
    model = planned.pop("model", None) or choice.get("checkpoint") or facts["model"]["id"]
    try:
        return found.open(model, task=task, **{**planned, **options})
    except BackendMissing as missing:
        if not choice.get("install") or name != choice["backend"]:
            raise
        raise BackendMissing(name, needs=missing.needs, install=choice["install"]) from missing
