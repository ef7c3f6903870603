"""An engine that can all that the protocol knows, and says what its prompt tells it to."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import web

import memserve
from memserve import errors
from memserve.client.generation import Generator
from memserve.client.handle import for_engine
from memserve.client.pooling import Embedder, Reranker
from memserve.protocol import (
    Capabilities,
    Completion,
    Delta,
    Embeddings,
    Ranking,
    Request,
    Sample,
    TokenLogprob,
    ToolCall,
    Usage,
)
from memserve.serve.endpoint.app import Endpoint, Limits, Models
from memserve.serve.endpoint.command import listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from memserve.protocol import Task

ABLE = Capabilities(
    backend="talker",
    model="talker-1",
    context=4096,
    chat=True,
    raw=True,
    token_ids=True,
    images=True,
    tools=True,
    temperature=True,
    top_p=True,
    max_tokens=True,
    top_k=True,
    min_p=True,
    seed=True,
    stop=True,
    n=True,
    logprobs=20,
    schema=True,
    regex=True,
    choices=True,
    thinking=frozenset({"on", "off", "budget"}),
    template=True,
    stream=True,
    extras=frozenset({"talker_verbosity"}),
    returns_token_ids=True,
    usage=True,
    cancel=True,
)
FAILURES = {
    "overflow": errors.ContextOverflow(tokens=5000, limit=4096),
    "broken": errors.EngineFailed("the card fell off"),
    "busy": errors.Overloaded("too busy"),
    "slower": errors.Throttled("slower", retry_at=4e9),
    "key": errors.AuthenticationFailed("HTTP 401: our own key is wrong"),
    "bug": RuntimeError("a bug"),
    "policy": errors.ContentRefused("not this"),
    "poor": errors.QuotaExceeded("no money"),
}


class Talker:
    """Satisfies memserve.protocol.AsyncEngine. "wait": until given up; "fail NAME": with that error."""

    any_loop = True

    def __init__(self, **able: Any) -> None:
        from dataclasses import replace

        self.capabilities = replace(ABLE, **able)
        self.asked: list[Request] = []
        self.waiting = self.given_up = 0

    async def complete(self, request: Request) -> Completion:
        text = await self._text(request)
        calls = self._calls(request)
        thought = "hmm" if request.thinking else None
        made = [
            Sample(
                None if calls else f"{text}{i or ''}",
                "tool_calls" if calls else "stop",
                (7, 8),
                (TokenLogprob("ü", -0.5, 7, (("ü", -0.5), ("b", -1.0))), TokenLogprob("x", None)),
                calls,
                thought,
            )
            for i in range(request.n)
        ]
        one, usage = made[0], Usage(3, 2 * request.n, 1, 1 if thought else None)
        logprobs = one.logprobs if request.logprobs is not None else None
        if logprobs is None:
            made = [
                Sample(s.text, s.finish_reason, s.token_ids, None, s.tool_calls, s.reasoning) for s in made
            ]
        return Completion(
            one.text,
            one.finish_reason,
            one.token_ids,
            logprobs,
            calls,
            thought,
            usage=usage,
            samples=tuple(made) if request.n > 1 else (),
            model="talker-1",
        )

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        text, calls = await self._text(request), self._calls(request)
        if request.thinking:
            yield Delta(reasoning="hmm")
        for word in re.findall(r"\S+\s*", "" if calls else text):
            yield Delta(word)
            if word.strip() == "wait":
                await self._wait()
            if word.strip() == "break":
                raise errors.ConnectionFailed("the line is dead")
        yield Delta("", "tool_calls" if calls else "stop", Usage(3, 2, 0), tool_calls=calls)

    async def _text(self, request: Request) -> str:
        self.asked.append(request)
        said = str(request.prompt) if not isinstance(request.prompt, list) else _last(request.prompt)
        if said.startswith("fail "):
            raise FAILURES[said[5:]]
        if said == "wait":
            await self._wait()
        if request.schema is not None:
            return json.dumps(_filled(request.schema, said))
        return (request.choices or (f"you said {said}",))[0]

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise

    def _calls(self, request: Request) -> tuple[ToolCall, ...]:
        answered = isinstance(request.prompt, list) and _role(request.prompt[-1]) == "tool"
        if not request.tools or answered or request.tool_choice == "none":
            return ()
        said = _last(request.prompt) if isinstance(request.prompt, list) else str(request.prompt)
        return tuple(
            ToolCall(
                f"call_{i}",
                tool["function"]["name"],
                json.dumps(_filled(tool["function"].get("parameters", {}), said)),
            )
            for i, tool in enumerate(request.tools)
        )


class Vectors:
    """Embeds and ranks by length."""

    def __init__(self, task: str) -> None:
        self.capabilities = Capabilities(
            backend="talker",
            model="lengths",
            tasks=frozenset({task}),
            dimensions=True,
            usage=True,
            roles=frozenset({"query"}),
        )

    def embed(self, texts: Sequence[str], *, role: Any, normalize: Any, dimensions: int | None) -> Embeddings:
        rows = [[float(len(text) + place) for place in range(dimensions or 3)] for text in texts]
        return Embeddings(np.array(rows, np.float32), Usage(prompt_tokens=len(texts)))


class Ranks(Vectors):
    embed = None  # type: ignore[assignment]

    def rerank(self, query: str, documents: Sequence[str]) -> Ranking:
        return Ranking(tuple(float(len(one)) for one in documents), Usage(prompt_tokens=4))


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None


def _last(prompt: list[Any]) -> str:
    content = prompt[-1].get("content") if isinstance(prompt[-1], dict) else prompt
    if isinstance(content, list):
        return " ".join(str(part.get("text", part.get("type"))) for part in content if isinstance(part, dict))
    return str(content)


def _filled(schema: Any, said: str) -> Any:
    """The plainest value; whole numbers and quoted words come from the prompt."""
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _filled(schema["anyOf"][0], said)
    number, word = re.search(r"-?\d+", said), re.search(r"'([^']+)'", said)
    plain: dict[str, Any] = {
        "integer": int(number[0]) if number else 1, "string": word[1] if word else "word", "number": 1.5,
        "boolean": True, "null": None, "array": [],
    }  # fmt: skip
    if schema.get("type") in plain:
        return plain[schema["type"]]
    return {name: _filled(part, said) for name, part in schema.get("properties", {}).items()}


def _own(engine: Talker) -> Iterator[tuple[Task, list[str], Any]]:
    yield "generate", ["talker-1", "also/this"], Generator(engine, for_engine(engine, 256))
    yield "embed", [], Embedder(ranks := Vectors("embed"), for_engine(ranks, 8))
    yield "rerank", [], Reranker(ranks := Ranks("rerank"), for_engine(ranks, 8))


def _behind(url: str) -> Iterator[tuple[Task, list[str], Any]]:
    """The same models of another endpoint, through the backend `openai`."""
    at: Any = {"backend": "openai", "base_url": url, "api_key": "k"}
    yield "generate", ["talker-1", "also/this"], memserve.generator("talker-1", **at)
    yield "embed", [], memserve.embedder("lengths", **at)
    yield "rerank", [], memserve.reranker("lengths", **at)


class Running:
    """An endpoint on loopback, in a thread of its own."""

    def __init__(self, engine: Talker, upstream: str | None, key: str | None, **limits: Any) -> None:
        self.engine, self.key, self.models = engine, key, Models()
        for task, names, handle in _behind(upstream) if upstream else _own(engine):
            self.models.add(task, handle, names)
        self.endpoint = Endpoint(self.models, key, Limits(**limits))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        self.port = self._do(self._listen())

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._taking.close)
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _end(self) -> None:
        await self._runner.cleanup()
        await asyncio.to_thread(self.models.close)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others)  # sessions to an upstream close on this loop

    async def _listen(self) -> int:
        app = self.endpoint.app()
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        self._taking = await listen(self._runner, "127.0.0.1", 0)
        return int(self._taking.sockets[0].getsockname()[1])


@contextmanager
def running(
    key: str | None = "k", able: Any = (), upstream: str | None = None, **limits: Any
) -> Iterator[Running]:
    """An endpoint over a talker, or over another endpoint; `able` replaces fields of its capabilities."""
    found = Running(Talker(**dict(able)), upstream, key, **limits)
    found.start()
    try:
        yield found
    finally:
        found.stop()
