"""Anthropic on loopback, and generators against it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from fake_anthropic import FakeAnthropic
from faulty_fixtures import quick, server, slept

import memserve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["quick", "server", "slept"]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of the machine that runs the tests."""
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def claude() -> Iterator[FakeAnthropic]:
    with FakeAnthropic() as running:
        yield running


@pytest.fixture
def opened(quick: None) -> Iterator[Callable[..., Any]]:
    """Open a model at an address; everything is closed at the end."""
    held = []

    def make(base_url: str, model: str = "claude-haiku-4-5", **options: Any) -> Any:
        defaults = {"timeout": 30, "max_retries": 2, "api_key": "sk-ant-very-secret"}
        held.append(
            memserve.generator(model, backend="anthropic", base_url=base_url, **{**defaults, **options})
        )
        return held[-1]

    yield make
    for generator in held:
        generator.close()
