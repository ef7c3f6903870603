"""Opens Bedrock (region, credentials, client) and drives Converse and its stream."""

import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from memserve.errors import InvalidInput, Unsupported
from memserve.http import (
    Call,
    Event,
    HttpClient,
    HttpEngine,
    Mask,
    Pieces,
    Secret,
    Signer,
    StaticKey,
    StreamReader,
    connect,
    key,
    known_errors,
    refuse_rest,
)
from memserve.http.address import named
from memserve.http.address import parse as parse_address
from memserve.http.body import counted
from memserve.http.chat import encode
from memserve.http.failure import Words
from memserve.protocol import Completion, Prompt, Request, Task
from memserve_bedrock import answer, ask, credential
from memserve_bedrock.answer import Frame, Frames
from memserve_bedrock.ask import Model
from memserve_bedrock.ask import capabilities as capabilities_of
from memserve_bedrock.ask import model as model_of


class ConverseEngine(HttpEngine):
    """Asks {base_url}/model/{id}/converse; the id is a model's, an inference profile's or an ARN."""

    def __init__(self, client: HttpClient, model: Model) -> None:
        super().__init__(client, capabilities_of(model))
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
        return await self._client.fetch(call, counted("inputTokens"))


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


capabilities = capabilities_of(model_of("claude-haiku-4-5"))
"""What many models can do; a model's own row decides."""
_ENDPOINTS = ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL")


def open_engine(model: str | None = None, *, task: Task = "generate", base_url: str | None = None,
                api_key: str | Secret | None = None, **options: Any) -> Any:  # fmt: skip
    """An engine; nothing is sent before the first request."""

    if task != "generate":
        raise Unsupported("bedrock", f"the task {task}")
    if not model:
        raise InvalidInput("backend 'bedrock' needs a model's id", hint="such as amazon.nova-lite-v1:0")
    refuse_rest("bedrock", options, *credential.OPTIONS)
    url = named(base_url) or next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    region = credential.region(options, model, parse_address(url).host if url else "")
    mask = Mask()
    signer = _signer(api_key, options, region, mask)
    client = connect(
        url or _endpoint(region), signer, options, mask=mask, errors=known_errors(__file__, refine)
    )
    return ConverseEngine(client, model_of(model))


def _endpoint(region: str | None) -> str:
    if not region:
        raise InvalidInput("Bedrock needs a region", hint="pass region= or set AWS_REGION")
    suffix = ".cn" if region.startswith("cn-") else ""
    return f"https://bedrock-runtime.{region}.amazonaws.com{suffix}"


def _signer(api_key: str | Secret | None, options: Mapping[str, Any], region: str | None,
            mask: Mask) -> Signer:  # fmt: skip
    pair = options.get("aws_access_key_id") is not None or options.get("profile") is not None
    bearer = None if pair and api_key is None else key(api_key, "AWS_BEARER_TOKEN_BEDROCK")
    if bearer is not None:
        mask.add(bearer.reveal())
        return StaticKey({"Authorization": Secret(f"Bearer {bearer.reveal()}")})
    if not region:
        raise InvalidInput("Bedrock needs a region", hint="pass region= or set AWS_REGION")
    from memserve_bedrock.credential import Signature

    return Signature(credential.reader(options), region, mask)


_DAILY = re.compile(r"tokens per day|requests per day|daily", re.IGNORECASE)
_THROTTLE = "throttlingexception"


def refine(words: Words, headers: Mapping[str, str]) -> Words:
    """The failure with its bare type first: ns#Type and Type:uri are both seen."""
    stated = headers.get("x-amzn-errortype", "")
    found = (code.rpartition("#")[2].partition(":")[0] for code in (stated, *words.codes))
    types = tuple(code for code in found if code)
    daily = any(code.lower() == _THROTTLE for code in types) and _DAILY.search(words.message)
    return replace(words, codes=(*(("quota_per_day",) if daily else ()), *types), wait=_wait(words, headers))


def _wait(words: Words, headers: Mapping[str, str]) -> float | None:
    """x-amz-retry-after counts milliseconds."""
    stated = headers.get("x-amz-retry-after", "").strip()
    return int(stated) / 1000 if stated.isascii() and stated.isdigit() else words.wait
