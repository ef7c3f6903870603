"""The asking loop for local engines: long lists in one call, in the caller's own thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from memserve.errors import BadAnswer, EngineFailed
from memserve.protocol import Completion
from memserve.run import ask
from memserve.run.limits.budget import Estimate, Spending
from memserve.run.limits.regulator import ABORT
from memserve.run.options import Options
from memserve.run.requests import Item, arrange, chosen
from memserve.run.store.results import Results

FIRST, MOST, LEAST = 64, 1024, 8
"""Requests to a call: as many as make it last a minute or so. More keep an engine fuller, but what was
not written down yet is lost in a crash."""
SHORT_SECONDS, LONG_SECONDS = 30.0, 90.0
WINDOW_CHARACTERS = 32 << 20


class LocalLoop:
    """Hands windows of requests to an engine until there are none, or something stops it."""

    def __init__(self, generator: Any, results: Results, spending: Spending, options: Options) -> None:
        self.error: BaseException | None = None
        self._generator = generator
        self._results = results
        self._spending = spending
        self._order = options.order
        self._most = options.concurrency or MOST
        self._size = 1 if spending.limited else min(FIRST, self._most)  # costs are learned first
        self._estimate = Estimate()
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
            self._size = min(self._most, self._size * 2)
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
            completion = ask.sound(answer)
        except ABORT as broken:
            self.error, self._stopping = broken, True
        except Exception as broken:
            self._spending.settle(promised, None)
            self._results.failed(item, broken)
        else:
            self._spending.settle(promised, completion.usage)
            self._estimate.learn(item, completion.usage)
            self._results.answered(item, completion, seconds)
            if self._results.trouble:
                self.error, self._stopping = self._results.trouble, True


def _by_settings(window: list[Item]) -> list[list[Item]]:
    """One call has one set of settings."""
    groups: dict[str, list[Item]] = {}
    for item in window:
        groups.setdefault(repr(sorted(chosen(item.request).items())), []).append(item)
    return list(groups.values())
