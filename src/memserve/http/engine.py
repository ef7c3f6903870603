"""The base of every HTTP backend: an entry point, an engine that writes and reads, batches."""

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import Any, cast

from memserve.errors import (
    BadAnswer,
    ConnectionFailed,
    MemserveError,
    RemoteError,
    ServerFailed,
    Unsupported,
)
from memserve.http import body, failure
from memserve.http.body import bad, parse, understood
from memserve.http.client import HttpClient, Pieces
from memserve.http.keys import sourced
from memserve.http.secret import MaskedStream
from memserve.http.sse import Event, events
from memserve.http.transport import Answer, Call, within
from memserve.protocol import (
    Capabilities,
    Completion,
    Delta,
    FinishReason,
    Request,
    Sample,
    Task,
    ToolCall,
    Usage,
)

_log = logging.getLogger("memserve.http")

_IDLE_EVENTS = frozenset({"ping", "keepalive", "heartbeat"})
_DRAIN_SECONDS = 0.1
_WORDS = ("text", "reasoning", "refusal", "model", "request_id")
"""What of an answer its server spelled."""


class StreamReader(ABC):
    """Reads one streamed answer, event by event; made anew for every attempt."""

    @abstractmethod
    def take(self, event: Event) -> list[Delta]:
        """The deltas that an event carries; raises where it carries a failure."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """True after the event that ends the stream."""

    @abstractmethod
    def end(self) -> list[Delta]:
        """What is left at the end; raises ConnectionFailed where the answer is not whole."""

    def whole(self, words: str, headers: Mapping[str, str]) -> list[Delta]:
        """The deltas of a server that answers with one JSON body although a stream was asked for."""
        raise body.bad(f"a stream was asked for and one body came: {words[:4096]!r}", retries=None)


def ended(reason: FinishReason | None, calls: Collection[ToolCall]) -> FinishReason | None:
    """Why an answer ended; OpenAI says stop where a call was named, others always."""
    return "tool_calls" if calls and reason == "stop" else reason


class AnswerReader(StreamReader):
    """A reader that knows how its answer ended."""

    def __init__(self, fail: Callable[[failure.Words], MemserveError]) -> None:
        self._fail = fail
        self._done = self._finished = False
        self._finish: FinishReason | None = None

    @property
    def done(self) -> bool:
        return self._done

    def _last(self, usage: Usage | None, calls: Iterable[ToolCall], text: str = "") -> list[Delta]:
        if not self._finished:
            raise ConnectionFailed("the stream ended before the answer was whole")
        made = tuple(replace(call, arguments=call.arguments or "{}") for call in calls)
        return [Delta(text, ended(self._finish, made), usage, tool_calls=made)]

    def _only(self, full: Completion) -> list[Delta]:
        return [Delta(full.text or "", full.finish_reason, full.usage, full.reasoning or "", full.tool_calls)]


class HttpEngine(ABC):
    """An engine behind HTTP. Retries, limits, pauses and secrets are the client's."""

    any_loop = True

    def __init__(self, client: HttpClient, capabilities: Capabilities) -> None:
        self._client = client
        self.capabilities = capabilities

    @abstractmethod
    def write(self, request: Request, *, stream: bool) -> Call:
        """The call that asks for an answer; raises Unsupported or InvalidInput before any work."""

    @abstractmethod
    def read(self, request: Request, words: str, headers: Mapping[str, str]) -> Completion:
        """The answer that a whole body holds; raises BadAnswer and its like."""

    def reader(self, request: Request) -> StreamReader:
        """A reader for one attempt at a stream."""
        raise Unsupported(self.capabilities.backend, "stream")

    @property
    def identity(self) -> Mapping[str, str]:
        """What answers, without any secret: part of the runner's cache key."""
        known = self.capabilities
        return {"backend": known.backend, "base_url": self._client.address.shown, "model": known.model or ""}

    async def complete(self, request: Request) -> Completion:
        """Answer one request or raise."""
        call = self.write(request, stream=False)
        answer = await self._client.fetch(call, lambda words, headers: self.read(request, words, headers))
        return self._masked(answer)

    def _masked(self, answer: Completion) -> Completion:
        """The answer without a key that the server echoes: files and logs repeat what it says."""
        mask = self._client.mask.answers
        found = {name: said for name in _WORDS if (said := getattr(answer, name))}
        masked: dict[str, Any] = {name: mask(said) for name, said in found.items()}
        samples = tuple(map(self._of_sample, answer.samples))
        calls = self._calls(answer.tool_calls)
        if (masked, samples, calls) == (found, answer.samples, answer.tool_calls):
            return answer
        return replace(answer, samples=samples, tool_calls=calls, **masked)

    def _of_sample(self, one: Sample) -> Sample:
        words = ("text", "reasoning", "refusal")
        found: dict[str, Any] = {
            n: self._client.mask.answers(said) for n in words if (said := getattr(one, n))
        }
        return replace(one, tool_calls=self._calls(one.tool_calls), **found)

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer one request piece by piece."""
        call = self.write(request, stream=True)

        def deltas(answer: Answer, pieces: Pieces) -> AsyncIterator[Delta]:
            return self._deltas(self.reader(request), answer, pieces)

        text, thought = (MaskedStream(self._client.mask.answers) for _ in range(2))
        async for delta in self._client.stream(call, deltas):
            last = delta.usage is not None or delta.finish_reason is not None
            said = (
                text.push(delta.text, last=last),
                thought.push(delta.reasoning, last=last or bool(delta.text)),
            )
            calls = self._calls(delta.tool_calls)
            if said != (delta.text, delta.reasoning) or calls != delta.tool_calls:
                delta = replace(delta, text=said[0], reasoning=said[1], tool_calls=calls)
            yield delta

    def _calls(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        mask = self._client.mask.answers
        return tuple(
            replace(one, id=mask(one.id), name=mask(one.name), arguments=mask(one.arguments)) for one in calls
        )

    def events(self, pieces: Pieces) -> AsyncIterator[Event]:
        """The events of a streamed body: server-sent events, unless the backend frames them otherwise."""
        return events(pieces, self._client.limits.event)

    def close(self) -> None:
        """Close the connections; from any thread."""
        self._client.close()

    async def _deltas(self, reader: StreamReader, answer: Answer, pieces: Pieces) -> AsyncIterator[Delta]:
        if "json" in answer.headers.get("content-type", "").lower():
            for delta in body.understood(reader.whole, await _rest(answer, pieces), answer.headers):
                yield delta
            return
        async for event in self.events(pieces):
            if event.name not in _IDLE_EVENTS:
                pieces.content()
            for delta in body.understood(reader.take, event):
                yield delta
            if reader.done:
                break
        for delta in reader.end():
            yield delta
        with suppress(RemoteError):  # the end of the body, so that the connection can serve again
            await within(_DRAIN_SECONDS, pieces.next(), "drained")


async def _rest(answer: Answer, pieces: Pieces) -> str:
    chunks = []
    while (chunk := await pieces.next()) is not None:
        chunks.append(chunk)
    return body.text(b"".join(chunks), answer.headers, strict=True)


class HttpBackend:
    """A backend whose `<package>.engine` holds `capabilities` and `open_engine`; loaded when first asked."""

    rules: None = None
    memory: None = None
    launch: None = None

    def __init__(self, name: str, package: str, *, keys: Sequence[str] = (), closed: bool = False) -> None:
        self.name = name
        self.keys = keys
        """The environment variables that hold its keys, for `memserve doctor`."""
        self.closed = closed
        """Its service serves its maker's models only, and no server of one's own."""
        self._package = package

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do at best, before a model is named."""
        return cast("Capabilities", self._engine().capabilities)

    def open(self, model: str | None = None, *, task: Task = "generate", **options: Any) -> Any:
        """An engine for one task; nothing is sent yet."""
        return self._engine().open_engine(model, task=task, **sourced(options))

    def _engine(self) -> Any:
        return import_module(f"{self._package}.engine")


def rows(words: str, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The objects of a body of lines; a broken one costs none of the others, which are paid for."""
    found = [_row(line) for line in words.split("\n") if line.strip()]
    broken = [one for one in found if isinstance(one, BadAnswer)]
    if broken and len(broken) == len(found):
        raise broken[0]
    if broken:
        _log.warning("a line of a batch is left out: %s", broken[0])
    return [row for row in found if isinstance(row, dict)]


def _row(line: str) -> Any:
    try:
        return parse(line)
    except BadAnswer as broken:
        return broken


def object_of(words: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The object that a body is."""
    found = parse(words)
    if not isinstance(found, dict):
        raise bad("the batch service answered no object")
    return found


def body_of(engine: HttpEngine, request: Request) -> dict[str, Any]:
    """What the engine would post for a request."""
    return object_of((engine.write(request, stream=False).body or b"").decode(), {})


def said(told: Callable[..., Completion | MemserveError], *found: Any) -> Completion | MemserveError:
    """What is made of one answer of a batch; one that is of no known shape costs none of the others."""
    try:
        return understood(told, *found)
    except MemserveError as error:
        return error


def first_answers(told: Iterable[tuple[str, Completion | MemserveError]],
                  ) -> dict[str, Completion | MemserveError]:  # fmt: skip
    """Of what is told of one request more than once the first answer counts: it is paid for."""
    found: dict[str, Completion | MemserveError] = {}
    for own, one in told:
        if not isinstance(found.get(own), Completion):
            found[own] = one
    return found


def answer_of(engine: HttpEngine, request: Request, words: str) -> Completion | MemserveError:
    """What the engine makes of one body, an error included."""
    return said(engine.read, request, words, {})


def error_of(client: HttpClient, status: Any, said: Any) -> MemserveError:
    """The error of a request that the batch did not answer; one that was not reached may be asked again."""
    words = failure.read(said) if isinstance(said, dict) else None
    if words is None or "batch_expired" in words.codes or not isinstance(status, int):
        return ServerFailed((words and words.message) or "the batch ended before this request was answered")
    return client.failed(words, status, {})
