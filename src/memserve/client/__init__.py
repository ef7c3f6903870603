"""What callers hold: sync, async, streaming and batch from the one method that an engine's author wrote."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from memserve.errors import InvalidInput
from memserve.protocol import Engine, Task

if TYPE_CHECKING:
    from os import PathLike

    from memserve.client.generation import Generator
    from memserve.client.handle import Driver, Planned
    from memserve.client.pooling import Embedder, Reranker

DEFAULT_CONCURRENCY = 256
__all__ = ["embedder", "generator", "opener", "reranker"]
_openers: WeakKeyDictionary[Generator, Callable[[], Generator]] = WeakKeyDictionary()
"""Beside the generators, since options may hold a key and no attribute of theirs may."""


def generator(model_or_plan: str | PathLike[str] | Planned | None = None, *, backend: str | None = None,
              concurrency: int | None = None, images_from: str | None = None,
              **options: Any) -> Generator:  # fmt: skip
    """Open a model for text generation: a name, a folder or a Plan; None: the embedded default.

    `concurrency` is the most requests in flight. `images_from`: what strings in image parts may name: "data"
    (data URLs alone; the default where a server answers), "paths" (files, too; the default in this process),
    "urls" (addresses, too, which are then fetched). Every other option goes to the backend.
    """
    from memserve import pictures
    from memserve.client.generation import Generator

    pictures.wanted(images_from, remote=True)  # a wrong word must not leave an engine behind
    engine, driver = _opened(model_or_plan, backend, "generate", concurrency, options)
    opened = Generator(engine, driver, images_from=images_from)
    _openers[opened] = partial(
        generator, model_or_plan, backend=backend, concurrency=concurrency, images_from=images_from, **options
    )  # fmt: skip
    return opened


def opener(opened: Generator) -> Callable[[], Generator] | None:
    """What opens another generator like this one, in this process or elsewhere; None: memserve did not."""
    return _openers.get(opened)


def embedder(model: str | PathLike[str] | Planned | None = None, *, backend: str | None = None,
             concurrency: int | None = None, **options: Any) -> Embedder:  # fmt: skip
    """Open a model for embeddings."""
    from memserve.client.pooling import Embedder

    return Embedder(*_opened(model, backend, "embed", concurrency, options))


def reranker(model: str | PathLike[str] | Planned | None = None, *, backend: str | None = None,
             concurrency: int | None = None, **options: Any) -> Reranker:  # fmt: skip
    """Open a cross-encoder."""
    from memserve.client.pooling import Reranker

    return Reranker(*_opened(model, backend, "rerank", concurrency, options))


def _opened(model: object, backend: str | None, task: Task, concurrency: object,
            options: dict[str, Any]) -> tuple[Engine, Driver]:  # fmt: skip
    from memserve.client.handle import for_engine, open_engine

    if twice := next((name for name in ("model", "task") if name in options), None):
        raise InvalidInput(f"{twice}= is no option of a backend", hint="memserve.generator(MODEL, backend=B)")
    if concurrency is None:
        concurrency = DEFAULT_CONCURRENCY
    if isinstance(concurrency, str) and concurrency.isdigit():
        concurrency = int(concurrency)
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidInput(f"concurrency is a whole number from 1, not {concurrency!r}")
    engine = open_engine(model, backend, task, options)
    return engine, for_engine(engine, concurrency)
