"""Chat and text completions against Pangu."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from memserve.errors import InvalidInput
from memserve.http import Call, HttpClient, HttpEngine, StreamReader
from memserve.http.body import parse
from memserve.http.chat import ChatReader, completion, encode, failure_in, messages
from memserve.protocol import Completion, Delta, Raw, Request
from memserve_pangu.guard import Guard, Guarded
from memserve_pangu.interface import EXTRA, Interface, capabilities

_PLAIN = ("temperature", "top_p", "max_tokens")


class PanguEngine(HttpEngine):
    """Asks one deployment (V1), or one model by its name (V2)."""

    def __init__(self, client: HttpClient, interface: Interface, model: str | None, guard: Guard,
                 signer: Guarded) -> None:  # fmt: skip
        if interface.model and not model:
            raise InvalidInput("Pangu's V2 needs a model's name", hint="generator('NAME', backend='pangu')")
        super().__init__(client, capabilities(interface, model))
        self._interface = interface
        self._model = model
        self._guard = guard
        self._signer = signer
        self._chat_url = client.address.url("chat/completions")
        self._text_url = client.address.url("text/completions")

    @property
    def identity(self) -> Mapping[str, str]:
        return {**super().identity, "interface": self._interface.name}

    async def complete(self, request: Request) -> Completion:
        """Answer one request; the first of all goes alone, so that a wrong key fails once."""
        answer = super().complete
        return await self._guard.watch(lambda: answer(request))

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer one request piece by piece."""
        stream = super().astream(request)
        first = await self._guard.watch(lambda: anext(stream, None))
        if first is not None:
            yield first
        async for delta in stream:
            yield delta

    def close(self) -> None:
        """Close the connections to Pangu and to IAM."""
        super().close()
        self._signer.close()

    def write(self, request: Request, *, stream: bool) -> Call:
        raw = isinstance(request.prompt, Raw)
        payload: dict[str, Any] = {"model": self._model} if self._interface.model else {}
        payload |= {"prompt": request.prompt.text} if raw else {"messages": messages(request.prompt)}  # type: ignore[union-attr]
        payload |= {name: value for name in _PLAIN if (value := getattr(request, name)) is not None}
        if request.n > 1:
            payload["n"] = request.n
        if request.stop:
            payload["stop"] = list(request.stop)
        if request.tools:
            payload["tools"] = [dict(tool) for tool in request.tools]
        if request.tool_choice is not None:
            payload["tool_choice"] = request.tool_choice
        payload |= {name.removeprefix(EXTRA): value for name, value in request.extra.items()}
        if stream:
            payload["stream"] = True
        return self._client.call(self._text_url if raw else self._chat_url, encode(payload))

    def read(self, request: Request, words: str, headers: Mapping[str, str]) -> Completion:
        found = parse(words)
        failed = failure_in(found)
        if failed is not None:
            raise self._client.failed(failed, 200, headers)
        return completion(found, n=request.n)

    def reader(self, request: Request) -> StreamReader:
        return ChatReader(lambda words: self._client.failed(words, 200, {}), key=self._interface.message)
