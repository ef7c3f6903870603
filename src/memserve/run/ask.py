"""Asking a generator, whatever of the protocol it has: awaited, or in threads where it only blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from memserve.errors import BadAnswer, InvalidInput, TimedOut
from memserve.http.chat.answer import count
from memserve.protocol import Completion, Request, Usage
from memserve.run.requests import chosen

LIMIT_SECONDS = 3600.0
"""No single request is waited for longer, whatever its client's own limits are."""


def batches(generator: Any) -> bool:
    """Whether to hand over long lists: a local engine, or one that can do nothing else."""
    return bool(getattr(getattr(generator, "capabilities", None), "batches", False))


def check(generator: Any) -> None:
    """Refuse what cannot generate, before any work."""
    if not callable(getattr(generator, "agenerate", None)) and not callable(
        getattr(generator, "generate", None)
    ):
        raise InvalidInput(
            f"{type(generator).__name__} is not a generator: it has neither generate nor agenerate"
        )


def sound(answer: Any) -> Completion:
    """The answer if it is one; raises the error that it carries."""
    if not isinstance(answer, Completion):
        raise BadAnswer(f"the generator returned {type(answer).__name__} instead of a Completion")
    if answer.error is not None:
        raise answer.error
    told = answer.usage
    usage = Usage(
        *map(count, (told.prompt_tokens, told.completion_tokens, told.cached_tokens, told.reasoning_tokens))
    )
    return answer if usage == told else replace(answer, usage=usage)


class Asker:
    """One request in, one completion out."""

    def __init__(self, generator: Any, most: int) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._call: Callable[..., Awaitable[Any]] = getattr(generator, "agenerate", None) or self._threaded
        self._generator = generator
        self._most = most

    async def ask(self, request: Request) -> Completion:
        """Raises what went wrong, within the time limit."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        late = loop.call_later(LIMIT_SECONDS, task.cancel) if task else None
        try:
            return sound(await self._call(request.prompt, **chosen(request)))
        except asyncio.CancelledError:
            if late is None or late.when() > loop.time():
                raise
            raise TimedOut(f"no answer within {LIMIT_SECONDS:.0f} s") from None
        finally:
            if late:
                late.cancel()

    def close(self) -> None:
        """Let the threads go; one that still waits for an answer ends with it."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _threaded(self, prompt: Any, **settings: Any) -> Any:
        self._pool = self._pool or ThreadPoolExecutor(self._most, thread_name_prefix="memserve-ask")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: self._generator.generate(prompt, **settings))
