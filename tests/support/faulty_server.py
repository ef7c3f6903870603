"""A server on loopback that misbehaves as it is told: one act per request, the last one repeated."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1745725506, "model": "name",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}  # fmt: skip
Act = Callable[["Wire"], Awaitable[None]]


@dataclass
class Post:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection, from the server's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.open = True

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def end(self, *, reset: bool = False) -> None:
        self.open = False
        if reset:
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()


@dataclass
class FaultyServer:
    """Runs in a thread of its own. `acts` answer posts; `health` answers GET /health."""

    tls: ssl.SSLContext | None = None
    acts: list[Act] = field(default_factory=list)
    health: Act | None = None
    posts: list[Post] = field(default_factory=list)
    gets: list[Post] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def __enter__(self) -> FaultyServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, daemon=True)
        ready = asyncio.run_coroutine_threadsafe(self._start(), self._loop)
        self._thread.start()
        ready.result(5)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def base_url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/v1"

    def will(self, *acts: Act) -> FaultyServer:
        self.acts = list(acts)
        return self

    def _main(self) -> None:
        self._loop.run_forever()

    async def _start(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        wire = Wire(reader, writer)
        try:
            while wire.open:
                post = await self._read(reader)
                await self._act(post)(wire)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(OSError, asyncio.TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(writer.wait_closed(), 1)

    def _act(self, post: Post) -> Act:
        if post.method == "GET":
            self.gets.append(post)
            return self.health or reply(404, b"{}")
        self.posts.append(post)
        return self.acts[min(len(self.posts), len(self.acts)) - 1]

    async def _read(self, reader: asyncio.StreamReader) -> Post:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Post(method, path, headers, body)


def reply(status: int = 200, body: bytes | dict[str, Any] | list[Any] | None = None, *, close: bool = False,
          **headers: str) -> Act:  # fmt: skip
    """A well-formed answer; header names are written with underscores."""
    data = body if isinstance(body, bytes) else json.dumps(ANSWER if body is None else body).encode()
    names = {"content_type": "application/json", **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in names.items()]
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\n{''.join(lines)}\r\n"
    return raw(head.encode("latin-1") + data, close=close)


def raw(data: bytes, *, close: bool = True, reset: bool = False, hang: bool = False) -> Act:
    """These bytes, and then the connection closed, reset, or left open in silence."""

    async def act(wire: Wire) -> None:
        if data:
            await wire.send(data)
        if hang:
            await asyncio.sleep(60)
        if reset or close:
            wire.end(reset=reset)

    return act


def drip(head: bytes, piece: bytes, every: float) -> Act:
    """A head, and then the same piece for ever."""

    async def act(wire: Wire) -> None:
        await wire.send(head)
        while True:
            await wire.send(piece)
            await asyncio.sleep(every)

    return act


SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
SSE_CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def piece(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One chunk of a streamed chat answer."""
    delta = {} if text is None else {"content": text}
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
GOOD_STREAM = [piece("o"), piece("k"), piece(finish="stop"), USAGE, DONE]


def stream(*events: bytes, **how: bool) -> Act:
    """A stream that ends with its connection."""
    return raw(SSE_HEAD + b"".join(events), **how)


def chunked(*events: bytes, whole: bool = True) -> Act:
    """A stream in chunked transfer, cut before its last chunk unless it is whole."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(e), e) for e in events)
    return raw(SSE_CHUNKED + body + (b"0\r\n\r\n" if whole else b""), close=not whole)
