"""A faulty server and a quick generator for each test."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from faulty_server import FaultyServer

import memserve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own pauses become short; pauses that a server asks for stay."""
    monkeypatch.setattr("memserve.http.retry._FIRST", 0.01)


class Clock:
    """Stands in for the clock of the pause that requests share: only sleeping moves it, and at once."""

    def __init__(self) -> None:
        self.now = self.begun = 0.0
        self.slept: list[float] = []

    def time(self) -> float:
        self.begun = self.begun or time.time()
        return self.begun + self.now

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made because a server asked for them, in seconds; none takes any time."""
    clock = Clock()
    monkeypatch.setattr("memserve.http.failure.time", clock)
    monkeypatch.setattr("memserve.http.retry.time", clock)
    monkeypatch.setattr("memserve.http.retry.asyncio", clock)
    return clock.slept


@pytest.fixture
def open_generator(server: FaultyServer, quick: None) -> Iterator[Callable[..., Any]]:
    opened = []

    def make(model: str = "name", **options: Any) -> Any:
        settings = {
            "base_url": server.base_url,
            "api_key": "sk-very-secret-key",
            "timeout": 30,
            "max_retries": 2,
        }
        opened.append(memserve.generator(model, backend="openai", **{**settings, **options}))
        return opened[-1]

    yield make
    for generator in opened:
        generator.close()
