"""The base of every HTTP backend's engine, which says how to write a request and how to read an answer."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace

from memserve.errors import RemoteError, Unsupported
from memserve.http import body, sse
from memserve.http.client import HttpClient, Pieces
from memserve.http.limits import within
from memserve.http.sse import Event
from memserve.http.transport import Answer, Call
from memserve.protocol import Capabilities, Completion, Delta, Request

_IDLE_EVENTS = frozenset({"ping", "keepalive", "heartbeat"})
_DRAIN_SECONDS = 0.1


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
        """The answer without a key in its names, which files and logs repeat."""
        mask = self._client.mask
        model, request_id = mask(answer.model or ""), mask(answer.request_id or "")
        if model == (answer.model or "") and request_id == (answer.request_id or ""):
            return answer
        return replace(answer, model=model or None, request_id=request_id or None)

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer one request piece by piece."""
        call = self.write(request, stream=True)

        def deltas(answer: Answer, pieces: Pieces) -> AsyncIterator[Delta]:
            return self._deltas(self.reader(request), answer, pieces)

        async for delta in self._client.stream(call, deltas):
            yield delta

    def events(self, pieces: Pieces) -> AsyncIterator[Event]:
        """The events of a streamed body: server-sent events, unless the backend frames them otherwise."""
        return sse.events(pieces, self._client.limits.event)

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
    return body.text(b"".join(chunks), answer.headers)
