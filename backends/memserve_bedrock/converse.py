"""Drives Converse and its stream."""

from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote

from memserve.http import Call, Event, HttpClient, HttpEngine, Pieces, StreamReader
from memserve.http.body import bad, parse
from memserve.http.chat import encode
from memserve.protocol import Completion, Prompt, Request
from memserve_bedrock import answer, ask
from memserve_bedrock.answer import Frame, Frames
from memserve_bedrock.model import Model, capabilities


class ConverseEngine(HttpEngine):
    """Asks {base_url}/model/{id}/converse; the id is a model's, an inference profile's or an ARN."""

    def __init__(self, client: HttpClient, model: Model) -> None:
        super().__init__(client, capabilities(model))
        self._model = model
        place = f"model/{quote(model.name or '', safe='')}"
        self._url = client.address.url(f"{place}/converse")
        self._stream_url = client.address.url(f"{place}/converse-stream")
        self._count_url = client.address.url(f"{place}/count-tokens")

    def write(self, request: Request, *, stream: bool) -> Call:
        payload = {**ask.prompt(request.prompt), **ask.settings(request, self._model)}
        return self._client.call(self._stream_url if stream else self._url, encode(payload))

    def read(self, request: Request, words: str, headers: Mapping[str, str]) -> Completion:
        return answer.completion(
            words, headers, self._model.name, lambda failed: self._client.failed(failed, 200, headers)
        )

    def reader(self, request: Request) -> StreamReader:
        return answer.ConverseReader(lambda failed: self._client.failed(failed, 200, {}))

    async def events(self, pieces: Pieces) -> AsyncIterator[Event]:
        """The frames of a stream as events."""
        frames = Frames(self._client.limits.event)
        while (chunk := await pieces.next()) is not None:
            for frame in frames.feed(chunk):
                yield _event(frame)
        frames.finish()

    async def acount_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, as the provider counts them; costs a request, and no money."""
        call = self._client.call(self._count_url, encode({"input": {"converse": ask.prompt(prompt)}}))
        return await self._client.fetch(call, _count)


def _event(frame: Frame) -> Event:
    """An event by its name; a failure by its type."""
    known = frame.headers
    data = frame.payload.decode("utf-8", "replace")
    if known.get(":message-type") == "exception":
        return Event(answer.EXCEPTION + known.get(":exception-type", ""), data)
    if known.get(":message-type") == "error":
        said = encode({"message": known.get(":error-message", "")}).decode()
        return Event(answer.EXCEPTION + known.get(":error-code", ""), said)
    return Event(known.get(":event-type", ""), data)


def _count(words: str, headers: Mapping[str, str]) -> int:
    found = parse(words)
    tokens = found.get("inputTokens") if isinstance(found, dict) else None
    if not isinstance(tokens, int):
        raise bad("the answer has no count of tokens")
    return tokens
