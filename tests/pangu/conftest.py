"""Pangu on loopback, and generators against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fake_pangu import DEPLOYMENT, PROJECT, FakePangu
from faulty_fixtures import quick, server, slept

import memserve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["quick", "server", "slept"]
LOGIN = {"user": "ann", "password": "pass-word-9", "domain": "acme"}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of the machine that runs the tests."""
    import os

    for name in [name for name in os.environ if name.startswith(("PANGU_", "HUAWEICLOUD_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def pangu() -> Iterator[FakePangu]:
    with FakePangu() as running:
        yield running


@pytest.fixture
def opened(quick: None) -> Iterator[Callable[..., Any]]:
    """Open V1 at an address; everything is closed at the end."""
    held = []

    def make(base_url: str, **options: Any) -> Any:
        place = {"project_id": PROJECT, "deployment_id": DEPLOYMENT}
        model = options.pop("model", None)
        limits = {"timeout": 30, "max_retries": 2}
        held.append(
            memserve.generator(model, backend="pangu", base_url=base_url, **{**limits, **place, **options})
        )
        return held[-1]

    yield make
    for generator in held:
        generator.close()
