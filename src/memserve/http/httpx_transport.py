"""Transports over an `httpx.AsyncClient` or `httpx.Client` that the caller hands in and keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from memserve.errors import ConnectionFailed, InvalidInput, TimedOut
from memserve.http.transport import Call, Refused, Transport, Untrusted

_THREADS = 64
_END = object()


def transport_for(client: Any, timeout: float) -> Transport:
    """The transport of a handed-in client, known by its shape, so that httpx need not be installed."""
    if hasattr(client, "build_request") and hasattr(client, "aclose"):
        return AsyncClientTransport(client, timeout)
    if hasattr(client, "build_request") and hasattr(client, "send"):
        return ClientTransport(client, timeout)
    raise InvalidInput(f"http_client is an httpx.AsyncClient or httpx.Client, not {type(client).__name__}")


class AsyncClientTransport:
    """Sends calls through an `httpx.AsyncClient`, which belongs to one event loop."""

    def __init__(self, client: Any, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, call: Call) -> AsyncClientAnswer:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise InvalidInput("the httpx.AsyncClient belongs to another event loop",
                               hint="for sync calls hand in an httpx.Client")  # fmt: skip
        self._loop = loop
        request = _request(self._client, call, self._timeout)
        try:
            return AsyncClientAnswer(await self._client.send(request, stream=True, follow_redirects=False))
        except Exception as broken:
            error = _failure(broken)
        raise error

    def close(self) -> None:
        """The client is the caller's."""


class AsyncClientAnswer:
    """An httpx answer, awaited."""

    decoded = False

    def __init__(self, response: Any) -> None:
        self._response = response
        self.status: int = response.status_code
        self.headers = _lower(response.headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        error = None
        try:
            async for chunk in self._response.aiter_raw():
                yield chunk
        except Exception as broken:
            error = _failure(broken)
        if error is not None:
            raise error

    async def release(self) -> None:
        await self._response.aclose()


class ClientTransport:
    """Sends calls through an `httpx.Client`, on threads of its own."""

    def __init__(self, client: Any, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="memserve-httpx")

    async def send(self, call: Call) -> ClientAnswer:
        request = _request(self._client, call, self._timeout)
        return ClientAnswer(await self._on_thread(self._sent, request), self._on_thread)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _sent(self, request: Any) -> Any:
        return self._client.send(request, stream=True, follow_redirects=False)

    async def _on_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work, *args)
        except Exception as broken:
            error = _failure(broken)
        raise error


class ClientAnswer:
    """An httpx answer, read on a thread."""

    decoded = False

    def __init__(self, response: Any, on_thread: Callable[..., Any]) -> None:
        self._response = response
        self._on_thread = on_thread
        self.status: int = response.status_code
        self.headers = _lower(response.headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        source = self._response.iter_raw()
        while (chunk := await self._on_thread(next, source, _END)) is not _END:
            yield chunk

    async def release(self) -> None:
        await self._on_thread(self._response.close)


def _request(client: Any, call: Call, timeout: float) -> Any:
    return client.build_request(
        call.method, call.url, content=call.body, headers=dict(call.headers), timeout=timeout
    )


def _lower(headers: Any) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _failure(broken: Exception) -> Exception:
    kinds = {kind.__name__ for kind in type(broken).__mro__}
    words = f"{type(broken).__name__}: {broken}"
    if "TimeoutException" in kinds:
        return TimedOut(f"the handed-in client timed out ({type(broken).__name__})")
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return Untrusted(f"the server's certificate does not verify: {broken}")
    if "ConnectError" in kinds and "refused" in words.lower():
        return Refused("the connection is refused: nobody listens there", hint="is the server up?")
    if "TransportError" in kinds or isinstance(broken, OSError):
        return ConnectionFailed(f"no whole answer: {words}")
    return broken
