"""The default transport: aiohttp, with one session per event loop, closed when the loop ends."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import aiohttp
from yarl import URL

from memserve.errors import BadAnswer, ConnectionFailed, TimedOut
from memserve.http.transport import Call, ProxyRefused, Refused, Stale, Untrusted

if TYPE_CHECKING:
    import ssl

_KEEPALIVE_SECONDS = 30.0
_PROBE_SECONDS = 60
_LINE = 64 * 1024
_LARGE_BODY = 2**20
_TURNS = 4
"""Turns of the loop until a connection that was cut off is gone."""
_SKIP = ("User-Agent", "Accept-Encoding", "Accept")


class AioTransport:
    """Sends calls through aiohttp."""

    def __init__(self, *, tls: ssl.SSLContext | None, proxy: str | None, connect: float,
                 stuck: float) -> None:  # fmt: skip
        self._tls = tls
        self._proxy = proxy
        self._connect = connect
        self._stuck = stuck
        self._open: dict[tuple[int, asyncio.AbstractEventLoop], _Session] = {}
        self._urls: dict[str, URL] = {}
        self._lock = threading.Lock()

    async def send(self, call: Call) -> AioAnswer:
        loop = asyncio.get_running_loop()
        held = self._open.get((os.getpid(), loop))
        if held is None:
            held = await self._session(loop)
        trace = SimpleNamespace(reused=False)
        try:
            response = await held.session.request(
                call.method, self._url(call.url), data=_payload(call.body), headers=call.headers,
                proxy=self._proxy, allow_redirects=False, trace_request_ctx=trace,
            )  # fmt: skip
            return AioAnswer(response)
        except (aiohttp.ClientError, OSError, ValueError) as broken:
            error = _failure(broken, reused=trace.reused)
        raise error  # out here, so that aiohttp's error, which holds the headers, is not its context

    def close(self) -> None:
        with self._lock:
            held, self._open = self._open, {}
        for (pid, loop), session in held.items():
            if pid == os.getpid():
                session.end(loop)

    def _url(self, text: str) -> URL:
        url = self._urls.get(text)
        if url is None:
            url = self._urls[text] = URL(text, encoded=True)
        return url

    async def _session(self, loop: asyncio.AbstractEventLoop) -> _Session:
        with self._lock:
            for key in [key for key in self._open if key[1].is_closed()]:
                del self._open[key]
            held = self._open[os.getpid(), loop] = _Session(self._tls, self._connect, self._stuck)
        await held.watch()
        return held


class _Session:
    """One aiohttp session, bound to one loop."""

    def __init__(self, tls: ssl.SSLContext | None, connect: float, stuck: float) -> None:
        self._stuck = stuck
        self._sockets: WeakSet[socket.socket] = WeakSet()
        reuse = aiohttp.TraceConfig()
        reuse.on_connection_reuseconn.append(_mark_reused)
        connector = aiohttp.TCPConnector(
            limit=0, ssl=tls if tls is not None else True, keepalive_timeout=_KEEPALIVE_SECONDS,
            socket_factory=self._socket,
        )  # fmt: skip
        self.session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False,
            skip_auto_headers=_SKIP, trace_configs=[reuse], max_line_size=_LINE, max_field_size=_LINE,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
        )  # fmt: skip
        self._watcher: AsyncGenerator[None, None] | None = None

    async def watch(self) -> None:
        """Close with the loop: a loop that ends closes its live async generators, so one is kept alive."""
        self._watcher = self._until_the_end()
        await anext(self._watcher)

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close from outside, whatever state the loop is in."""
        if loop.is_closed():
            self.session.detach()
        elif loop.is_running():
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: loop.create_task(self._close()))
        else:
            loop.run_until_complete(self._close())

    async def _close(self) -> None:
        if self._watcher is not None:
            await self._watcher.aclose()

    async def _until_the_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._cut()
            await self.session.close()
            for _ in range(_TURNS):
                await asyncio.sleep(0)

    def _socket(self, address: Any) -> socket.socket:
        made = _socket(address, self._stuck)
        self._sockets.add(made)
        return made

    def _cut(self) -> None:
        """End the connections: one that is only closed stays while its peer takes nothing of what is left."""
        for held in [held for held in self._sockets if held.fileno() >= 0]:
            with suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)


class AioAnswer:
    """The head of an answer and its body as it arrives."""

    decoded = False

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._wire = response.connection.transport if response.connection is not None else None
        self.status = response.status
        self.headers: Mapping[str, str] = {
            name.decode("latin-1").lower(): value.decode("utf-8", "replace")
            for name, value in response.raw_headers
        }

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._response.content
        reason = ""
        try:
            while chunk := await content.readany():
                yield chunk
        except (aiohttp.ClientError, OSError) as broken:
            reason = _reason(broken)
        if reason:
            if self._wire is not None:
                self._wire.close()  # Python 3.10 does not count a TLS connection that was reset as closed
            raise ConnectionFailed(f"the answer broke off: {reason}")

    async def release(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    """aiohttp sends large bodies piece by piece only when they are files."""
    return io.BytesIO(body) if body is not None and len(body) > _LARGE_BODY else body


def _socket(address: Any, stuck: float) -> socket.socket:
    """A socket that notices a peer that has vanished without a word, or takes nothing any more."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * stuck))
    return made


async def _mark_reused(_session: Any, context: Any, _parameters: Any) -> None:
    context.trace_request_ctx.reused = True


def _reason(broken: BaseException) -> str:
    words = str(getattr(broken, "os_error", None) or broken).partition(", url=")[0]
    return f"{type(broken).__name__}: {words}" if words else type(broken).__name__


def _failure(broken: Exception, *, reused: bool) -> ConnectionFailed | TimedOut | BadAnswer:
    if isinstance(broken, aiohttp.ClientConnectorCertificateError):
        return Untrusted(
            f"the server's certificate does not verify: {broken.certificate_error}",
            hint="trust its authority: SSL_CERT_FILE=/path/to/ca.pem",
        )
    if isinstance(broken, aiohttp.ClientHttpProxyError):
        return ProxyRefused(f"the proxy refuses the connection: HTTP {broken.status}", status=broken.status)
    if isinstance(broken, aiohttp.ClientConnectorError) and isinstance(
        broken.os_error, ConnectionRefusedError
    ):
        return Refused("the connection is refused: nobody listens there", hint="is the server up?")
    if isinstance(broken, (aiohttp.ServerTimeoutError, TimeoutError)):
        return TimedOut("no connection within the time limit")
    if isinstance(broken, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)) and reused:
        return Stale("the kept-alive connection was closed by the server")
    if isinstance(broken, aiohttp.ClientResponseError):
        return BadAnswer(f"the answer is not HTTP: {broken.message[:120]!r}")
    return ConnectionFailed(f"no answer: {_reason(broken)}")
