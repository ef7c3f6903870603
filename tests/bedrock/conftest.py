"""Bedrock on loopback, and generators against it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from fake_bedrock import ACCESS, SECRET, FakeBedrock
from faulty_fixtures import quick, server, slept

import memserve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["quick", "server", "slept"]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of the machine that runs the tests."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def bedrock() -> Iterator[FakeBedrock]:
    with FakeBedrock() as running:
        yield running


PAIR = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET, "region": "us-east-1"}


@pytest.fixture
def opened(quick: None) -> Iterator[Callable[..., Any]]:
    """Open a model at an address; everything is closed at the end."""
    held = []

    def make(base_url: str, model: str = "us.amazon.nova-lite-v1:0", **options: Any) -> Any:
        pair = {} if {"api_key", "profile", "bare"} & set(options) else PAIR
        options.pop("bare", None)
        settings = {"timeout": 30, "max_retries": 2, **pair, **options}
        held.append(memserve.generator(model, backend="bedrock", base_url=base_url, **settings))
        return held[-1]

    yield make
    for generator in held:
        generator.close()
