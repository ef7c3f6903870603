"""The routes: key, limits, errors and counts are the same for all; each says how it asks and answers."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from aiohttp import web

from memserve.client.handle import Handle
from memserve.errors import ContextOverflow, InvalidInput, MemserveError, NotFound, Overloaded
from memserve.protocol import DEFAULT_MAX_TOKENS, Completion, Delta, Task, Usage
from memserve.serve.endpoint import answered, reading
from memserve.serve.endpoint import asked as asking
from memserve.serve.endpoint.answered import Piece
from memserve.serve.endpoint.asked import Asked

log = logging.getLogger("memserve.serve")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_fields: ContextVar[frozenset[str]] = ContextVar("memserve_fields", default=frozenset())
"""The names that the body at hand holds, which an error may be about."""
_GONE = 499
"""The status that counts a caller who left."""
_NO_IDS = "token ids are not taken: LangChain sends texts with check_embedding_ctx_length=False"
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass(frozen=True)
class Limits:
    """What one caller, and all together, may take."""

    concurrency: int = 256
    queue: int = 1024
    """Requests that wait beyond those in work; more are refused with 503."""
    body: int = 32 * 2**20
    patience: float = 60.0
    """Seconds for a caller to send a body, or to take a piece of the answer."""


@dataclass
class Models:
    """Handles by task and name."""

    handles: dict[Task, dict[str, Handle]] = field(default_factory=dict)

    def add(self, task: Task, handle: Handle, names: Sequence[str]) -> None:
        """Serve a handle under some names."""
        for name in names or [handle.capabilities.model or handle.capabilities.backend]:
            if name in self.handles.setdefault(task, {}):
                raise InvalidInput(f"two models are named {name!r}")
            self.handles[task][name] = handle
        self.__dict__.pop("rows", None)

    def find(self, task: Task, name: Any) -> tuple[str, Any]:
        """The name and the handle that a body means; it may leave out the only one's."""
        known = self.handles.get(task, {})
        if name is None and len(set(map(id, known.values()))) == 1:
            name = next(iter(known))
        if name is None:
            raise InvalidInput("model is missing", hint=f"served for this: {', '.join(known) or 'none'}")
        if not isinstance(name, str) or name not in known:
            served = ", ".join(known) or "none"
            raise NotFound(f"no model {name!r} to {task} with", hint=f"served for this: {served}")
        return name, known[name]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """What /v1/models lists, each name once: OpenAI's fields, and what its first task and each can do."""
        head, found = {"object": "model", "created": 0, "owned_by": "memserve"}, dict[str, dict[str, Any]]()
        for task, named in self.handles.items():
            for name, handle in named.items():
                told = _told(task, handle)
                found.setdefault(name, {"id": name, **head, **told, "tasks": {}})["tasks"][task] = told
        return list(found.values())

    def close(self) -> None:
        """Close every handle once."""
        for handle in {id(h): h for named in self.handles.values() for h in named.values()}.values():
            with suppress(MemserveError):
                handle.close()


def _told(task: Task, handle: Handle) -> dict[str, Any]:
    known = handle.capabilities
    told = {key: sorted(v) if isinstance(v, frozenset) else v for key, v in asdict(known).items()}
    return {"task": task, "max_model_len": known.context, "capabilities": told}


class Endpoint:
    """Models on OpenAI's routes."""

    def __init__(self, models: Models, key: str | None, limits: Limits) -> None:
        self._models, self._limits = models, limits
        self._key = None if key is None else f"Bearer {key}".encode()
        self._metrics = Metrics()
        self.ending = False

    def app(self) -> web.Application:
        """The application that aiohttp runs."""
        app = web.Application(middlewares=[self._around], client_max_size=self._limits.body)
        post, get = app.router.add_post, app.router.add_get
        get("/health", self._health)
        get("/metrics", self._counts)
        get("/v1/models", self._list)
        get("/v1/models/{id:.+}", self._one)
        post("/v1/chat/completions", self._route(asking.chat, answered.Chat))
        post("/v1/completions", self._route(asking.text, answered.Text))
        post("/v1/responses", self._route(asking.responses, answered.Responses))
        post("/v1/embeddings", self._embed)
        post("/v1/rerank", self._rerank)
        post("/tokenize", self._tokens(reading.tokenize))
        post("/detokenize", self._tokens(reading.detokenize))
        return app

    # ------------------------------------------------------------ around every route

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = request.match_info.route.resource
        name, began = (route.canonical if route else "unknown"), time.monotonic()
        status = _GONE
        self._metrics.in_flight += 1
        try:
            response = await self._answered(request, handler)
            status = response.status
        finally:
            self._metrics.in_flight -= 1
            self._metrics.add("requests_total", route=name, status=str(status))
            self._metrics.add("request_seconds_total", time.monotonic() - began, route=name)
        return response

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        _fields.set(frozenset())
        try:
            self._refuse(request)
            return await handler(request)
        except MemserveError as error:
            status, headers, body = answered.failure(error, _fields.get())
            return web.json_response(body, status=status, headers=headers)
        except web.HTTPException as error:
            said = error.text if error.status == 401 else f"{error.reason}: {request.method} {request.path}"
            said = f"{said}{self._remedies().get(error.status, '')}"
            code = "invalid_api_key" if error.status == 401 else None
            return web.json_response(answered.refusal(error.status, said, code), status=error.status)
        except ConnectionError:
            return web.Response(status=_GONE)
        except Exception as error:
            log.exception("a request failed in a way that nobody expected")
            body = answered.refusal(500, f"memserve failed: {type(error).__name__}")
            return web.json_response(body, status=500)

    def _remedies(self) -> dict[int, str]:
        body = f" (more than {self._limits.body} bytes: --max-body)"
        return {
            404: " (all routes but /health, /metrics and /tokenize begin with /v1, the base URL's end)",
            413: body,
        }

    def _refuse(self, request: web.Request) -> None:
        if request.path == "/health":
            return
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if self._key is not None and not hmac.compare_digest(given, self._key):
            raise web.HTTPUnauthorized(text="the key is missing or wrong: Authorization: Bearer KEY")
        if self._key is None and "Origin" in request.headers:
            raise web.HTTPForbidden(reason="without a key, pages of a browser are refused")
        most = self._limits.concurrency + self._limits.queue
        if self.ending or (request.method == "POST" and self._metrics.in_flight > most):
            why = "the server is ending" if self.ending else f"{most} requests are waiting"
            raise Overloaded(f"{why}: ask again later")

    async def _body(self, request: web.Request) -> dict[str, Any]:
        try:
            with self._patient(request):
                words = await request.read()
        except web.RequestPayloadError:
            raise InvalidInput("the body is not what its Content-Encoding says") from None
        found = asking.body_of(words)
        _fields.set(frozenset(found))
        return found

    # ------------------------------------------------------------ small routes

    async def _health(self, request: web.Request) -> web.Response:
        status = 503 if self.ending else 200
        return web.json_response({"status": "ending" if self.ending else "ok"}, status=status)

    async def _counts(self, request: web.Request) -> web.Response:
        return web.Response(text=self._metrics.text(), content_type="text/plain")

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": self._models.rows})

    async def _one(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        row = next((row for row in self._models.rows if row["id"] == name), None)
        if row is None:
            raise NotFound(f"no model {name!r}")
        return web.json_response(row)

    async def _embed(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        name, embedder = self._models.find("embed", body.pop("model", None))
        texts, form = body.pop("input", None), body.pop("encoding_format", "float")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise InvalidInput("input is a text or a list of texts", hint=_NO_IDS)
        asking.only(body, "dimensions", "role", "normalize", "user")
        if form not in ("float", "base64"):
            raise InvalidInput(f"encoding_format is float or base64, not {form!r}")
        body.pop("user", None)
        found = await embedder.aembed(texts, **body)
        self._metrics.used(name, found.usage)
        vectors = found.vectors.astype("<f4")
        data = [
            {"object": "embedding", "index": i, "embedding":
             base64.b64encode(vector.tobytes()).decode() if form == "base64" else vector.tolist()}
            for i, vector in enumerate(vectors)
        ]  # fmt: skip
        tokens = found.usage.prompt_tokens or 0
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response({"object": "list", "data": data, "model": name, "usage": usage})

    async def _rerank(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        name, reranker = self._models.find("rerank", body.pop("model", None))
        asking.only(body, "query", "documents", "top_n", "return_documents")
        given, most = body.get("documents"), body.get("top_n")
        if not isinstance(given, list):
            raise InvalidInput("documents is a list of texts")
        if most is not None and (type(most) is not int or most < 1):
            raise InvalidInput(f"top_n is a whole number from 1, not {most!r}")
        texts = [one.get("text") if isinstance(one, dict) else one for one in given]
        found = await reranker.arerank(body.get("query"), texts)
        self._metrics.used(name, found.usage)
        order = sorted(range(len(texts)), key=lambda i: -found.scores[i])[:most]
        shown = {i: {"document": {"text": texts[i]}} for i in order} if body.get("return_documents") else {}
        rows = [{"index": i, "relevance_score": found.scores[i], **shown.get(i, {})} for i in order]
        return web.json_response({"model": name, "results": rows, "usage": answered.usage(found.usage)})

    def _tokens(self, work: Callable[..., dict[str, Any]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await self._body(request)
            _, generator = self._models.find("generate", body.pop("model", None))
            return web.json_response(await asyncio.to_thread(work, generator, body))

        return handle

    # ------------------------------------------------------------ generating routes

    def _route(self, read: Callable[..., Asked], shape: Callable[[str, Asked], Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await self._body(request)
            name, generator = self._models.find("generate", body.get("model"))
            asked = read(body, generator.capabilities)
            told = shape(name, asked)
            if asked.stream:
                return await self._streamed(request, name, _pieces(generator, asked), told)
            answers = await _answers(generator, asked)
            self._metrics.used(name, answered.total(answers))
            return web.json_response(told.whole(answers))

        return handle

    async def _streamed(self, request: web.Request, name: str, pieces: AsyncIterator[Piece],
                        shape: Any) -> web.StreamResponse:  # fmt: skip
        spent = None
        response = web.StreamResponse(headers=_HEADERS)
        try:
            piece = await anext(pieces, None)  # what fails before it is a status, not a broken stream
            await response.prepare(request)
            while piece is not None:
                spent = piece.delta.usage or spent
                await self._send(request, response, shape.events(piece))
                piece = await anext(pieces, None)
            await self._send(request, response, shape.end(spent))
        except MemserveError as error:
            if not response.prepared:
                raise
            await self._send(request, response, shape.failed(answered.failure(error, _fields.get())[2]))
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
            self._metrics.used(name, spent)
        await response.write_eof()
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse,
                    events: Iterator[bytes]) -> None:  # fmt: skip
        if data := b"".join(events):
            with self._patient(request):
                await response.write(data)

    @contextmanager
    def _patient(self, request: web.Request) -> Iterator[None]:
        """Drops a caller who neither sends nor takes anything; `wait_for` may swallow that one left."""
        assert request.transport is not None
        timer = asyncio.get_running_loop().call_later(self._limits.patience, request.transport.abort)
        try:
            yield
        finally:
            timer.cancel()


async def _answers(generator: Any, asked: Asked) -> list[Completion]:
    said = [] if reading.unanswered(asked) else await _said(generator, asked)
    return await asyncio.to_thread(reading.echoed, generator, asked, said) if asked.echo else said


async def _said(generator: Any, asked: Asked) -> list[Completion]:
    if len(asked.prompts) > 1:
        return list(await generator.agenerate(asked.prompts, **asked.settings))
    try:
        return [await generator.agenerate(asked.prompts[0], **asked.settings)]
    except ContextOverflow as error:
        return [await generator.agenerate(asked.prompts[0], **_fitted(asked.settings, error))]


def _fitted(settings: dict[str, Any], error: ContextOverflow) -> dict[str, Any]:
    """The settings where nobody said how long an answer may be: as long as the context has room for."""
    if "max_tokens" in settings or error.tokens is None or error.limit is None:
        raise error
    room = error.limit - error.tokens + DEFAULT_MAX_TOKENS
    if not 0 < room < DEFAULT_MAX_TOKENS:
        raise error
    return {**settings, "max_tokens": room}


async def _pieces(generator: Any, asked: Asked) -> AsyncIterator[Piece]:
    """The answer bit by bit, or all at once where a stream cannot carry what is asked."""
    settings = asked.settings
    alone = (
        len(asked.prompts) == 1
        and not asked.echo
        and settings.get("n", 1) == 1
        and "logprobs" not in settings
    )
    if alone and generator.capabilities.stream and not asked.token_ids and not settings.get("reask"):
        async for delta in _streamed(generator, asked.prompts[0], settings):
            yield Piece(0, delta)
        return
    answers = await _answers(generator, asked)
    said = [sample for answer in answers for sample in answer.samples or (answer,)]
    for index, one in enumerate(said):
        spent = answered.total(answers) if index + 1 == len(said) else None
        text, thought, calls = one.text or "", one.reasoning or "", one.tool_calls
        yield Piece(index, Delta(text, one.finish_reason, spent, thought, calls), one)


async def _streamed(generator: Any, prompt: Any, settings: dict[str, Any]) -> AsyncIterator[Delta]:
    deltas, begun = generator.astream(prompt, **settings), False
    try:
        async for delta in deltas:
            begun = True
            yield delta
    except ContextOverflow as error:
        if begun:
            raise
        deltas = generator.astream(prompt, **_fitted(settings, error))
        async for delta in deltas:
            yield delta
    finally:
        await deltas.aclose()


class Metrics:
    """What happened since the start, in the text format of Prometheus."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._values: defaultdict[str, float] = defaultdict(float)

    def add(self, name: str, number: float = 1, **labels: str) -> None:
        """Count something."""
        said = ",".join(f"{label}={json.dumps(word, ensure_ascii=False)}" for label, word in labels.items())
        self._values[f"memserve_{name}{{{said}}}"] += number

    def used(self, model: str, usage: Usage | None) -> None:
        """Tokens that an answer took."""
        for kind in ("prompt", "completion"):
            self.add("tokens_total", getattr(usage, f"{kind}_tokens", None) or 0, model=model, kind=kind)

    def text(self) -> str:
        """All of them, a line each."""
        values = {**self._values, "memserve_requests_in_flight": self.in_flight}
        return "".join(f"{name} {value}\n" for name, value in sorted(values.items()))
