"""Asking a generator: awaited, in threads where it only blocks, in long lists where it is local."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from memserve.errors import BadAnswer, EngineFailed, InvalidInput, TimedOut
from memserve.http.chat.answer import count
from memserve.protocol import Completion, Request, Usage
from memserve.run.limits.budget import Spending
from memserve.run.limits.regulator import ABORT
from memserve.run.options import Options
from memserve.run.requests import Item, arrange, chosen
from memserve.run.store.results import Results

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
    usage = Usage(**{name: count(value) for name, value in vars(told).items()})
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


FIRST, USUAL, MOST, LEAST = 8, 64, 1024, 8
"""Requests to a call: as many as make it last a minute or so. More keep an engine fuller, but what was
not written down yet is lost in a crash. The first list soon shows that there are answers, and how fast."""
SHORT_SECONDS, LONG_SECONDS = 30.0, 90.0
WINDOW_CHARACTERS = 32 << 20


class LocalLoop:
    """Hands windows of requests to an engine until there are none, or something stops it."""

    def __init__(self, generator: Any, results: Results, spending: Spending, options: Options, *,
                 first: int | None = None) -> None:  # fmt: skip
        self.error: BaseException | None = None
        self._generator = generator
        self._results = results
        self._spending = spending
        self._order = options.order
        self._most = options.concurrency or MOST
        self._size = 1 if spending.limited else min(first or FIRST, self._most)  # costs are learned first
        self._next = 1 if spending.limited else USUAL
        """What follows the first list that was short."""
        self._estimate = spending.estimate
        self._promised: dict[int, float] = {}
        self._stopping = False

    def stop(self) -> None:
        """Ask no more after the list that the engine is working on."""
        self._stopping = True

    def run(self, items: Iterator[Item]) -> None:
        """Ask for every item."""
        while not self._stopping:
            window = self._window(items)
            if not window:
                return
            if self._order == "prefix":
                window = arrange(window)
            began = time.monotonic()
            for group in _by_settings(window):
                if not self._stopping:
                    self._ask(group)
            self._resize(time.monotonic() - began)

    def _resize(self, seconds: float) -> None:
        if seconds < SHORT_SECONDS:
            self._size = min(self._most, max(self._size * 2, self._next))
            self._next = 1
        elif seconds > LONG_SECONDS:
            self._size = max(min(LEAST, self._most), self._size // 2)

    def _window(self, items: Iterator[Item]) -> list[Item]:
        window: list[Item] = []
        characters = 0
        while len(window) < self._size and characters < WINDOW_CHARACTERS and not self._stopping:
            item = next(items, None)
            if item is None:
                break
            tokens = self._estimate.of(item)
            if not self._spending.affords(tokens):
                self.error, self._stopping = self._spending.spent(), True
                break
            self._promised[item.index] = self._spending.promise(tokens)
            window.append(item)
            characters += item.characters
        return window

    def _ask(self, group: list[Item]) -> None:
        began = time.monotonic()
        try:
            answers = self._generate(group)
        except (EngineFailed, *ABORT) as broken:
            self.error, self._stopping = broken, True
            return
        except Exception as broken:
            self._one_by_one(group, broken)
            return
        seconds = (time.monotonic() - began) / len(group)
        for item, answer in zip(group, answers, strict=True):
            self._settle(item, answer, seconds)

    def _generate(self, group: list[Item]) -> list[Completion]:
        prompts = [item.request.prompt for item in group]
        answers = self._generator.generate(prompts, on_error="return", **chosen(group[0].request))
        if not isinstance(answers, list) or len(answers) != len(group):
            raise BadAnswer(f"the engine did not return {len(group)} answers to {len(group)} prompts")
        return answers

    def _one_by_one(self, group: list[Item], broken: Exception) -> None:
        """One bad request must not fail its whole list."""
        if len(group) == 1:
            self._results.failed(group[0], broken)
            return
        for item in group:
            if not self._stopping:
                self._ask([item])

    def _settle(self, item: Item, answer: Completion, seconds: float) -> None:
        promised = self._promised.pop(item.index, 0.0)
        try:
            completion = sound(answer)
        except ABORT as broken:
            self.error, self._stopping = broken, True
        except Exception as broken:
            self._spending.settle(promised, None)
            self._results.failed(item, broken)
        else:
            self._results.answered(item, completion, seconds)
            self._spending.settle(promised, completion.usage)
            self._estimate.learn(item, completion.usage)
            if self._results.trouble:
                self.error, self._stopping = self._results.trouble, True


def _by_settings(window: list[Item]) -> list[list[Item]]:
    """One call has one set of settings."""
    groups: dict[str, list[Item]] = {}
    for item in window:
        groups.setdefault(repr(sorted(chosen(item.request).items())), []).append(item)
    return list(groups.values())
