"""A provider on loopback with a tiny deterministic model; each provider's fake adds its own wire."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

WORDS = ["river", "stone", "lamp", "green", "seven", "window", "apple", "under", "paper", "cloud", "salt"]
CONTEXT = 4096


@dataclass(frozen=True)
class Speech:
    """What the tiny model says: pieces of text, why it ended, and what it read."""

    pieces: list[str]
    finish: str
    prompt_tokens: int

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        return len(self.pieces)


def count(text: str) -> int:
    return len(text.split())


def speak(prompt: str, max_tokens: int, stop: list[str] | tuple[str, ...] = (), variant: int = 0) -> Speech:
    """The same words for the same prompt; finish is "stop", "length" or "stop_sequence"."""
    digest = hashlib.sha256(f"{variant}:{prompt}".encode()).digest()
    words = [WORDS[byte % len(WORDS)] for byte in digest * 2]
    pieces = [word if i == 0 else f" {word}" for i, word in enumerate(words)]
    said = pieces[:max_tokens]
    text, finish = "".join(said), "length" if max_tokens < len(pieces) else "stop"
    cut = min((at for s in stop if (at := text.find(s)) >= 0), default=None)
    if cut is not None:
        finish, kept = "stop_sequence", []
        for piece in said:
            kept.append(piece[: max(0, cut)])
            cut -= len(piece)
            if cut <= 0:
                break
        said = [piece for piece in kept if piece]
    return Speech(said, finish, count(prompt) + 3)


def instance(schema: dict[str, Any]) -> Any:
    """The plainest value that a JSON schema allows."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = str(schema.get("type", "object")).lower()
    if kind == "object":
        return {name: instance(inner) for name, inner in schema.get("properties", {}).items()}
    plain: dict[str, Any] = {"string": "word", "integer": 1, "number": 1.5, "boolean": True, "array": []}
    return plain[kind]


@dataclass
class Seen:
    """One request as the fake saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeProvider:
    """Runs in a thread of its own; a subclass's `answer` gives a response to every request."""

    seen: list[Seen] = field(default_factory=list)
    port: int = 0
    spoken: int = 0

    def say(self, prompt: str, max_tokens: int, stop: Any = (), *, temperature: float = 0.0,
            seed: int | None = None) -> Speech:  # fmt: skip
        """The tiny model's answer: the same when greedy or seeded, another each time when hot."""
        self.spoken += 1
        variant = 0 if not temperature else self.spoken if seed is None else seed + 1
        return speak(prompt, max_tokens, stop or (), variant)

    async def answer(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Any:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(request.method, request.raw_path, headers, await request.read())
        self.seen.append(seen)
        return await self.answer(seen, request)


async def sse(request: web.Request, events: list[bytes]) -> web.StreamResponse:
    """A stream of server-sent events."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in events:
        await response.write(event)
    await response.write_eof()
    return response


def refusal(status: int, body: Any, **headers: str) -> web.Response:
    return web.json_response(
        body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
