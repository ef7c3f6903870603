from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from talker import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture
def ask(endpoint: Running) -> Iterator[Any]:
    """Post to a route: the response."""
    base = endpoint.base_url.removesuffix("/v1")
    with httpx.Client(base_url=base, headers={"Authorization": "Bearer k"}, timeout=60) as client:

        def post(route: str, body: Any = None, **more: Any) -> httpx.Response:
            return client.post(route, json=body, **more) if more or body is not None else client.get(route)

        yield post
