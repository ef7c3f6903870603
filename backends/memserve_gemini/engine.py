"""Opens Gemini for generation or embeddings; generateContent, its stream, and countTokens."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.http import (
    Call,
    HttpClient,
    HttpEngine,
    Mask,
    Secret,
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
from memserve_gemini import answer, ask
from memserve_gemini.model import Model, embedding_model, roles
from memserve_gemini.model import capabilities as capabilities_of
from memserve_gemini.model import model as model_of


class GeminiEngine(HttpEngine):
    """Asks {base_url}/models/{model}:generateContent."""

    def __init__(self, client: HttpClient, model: Model) -> None:
        super().__init__(client, capabilities_of(model))
        self._model = model
        self._url = client.address.url(f"{model.path}:generateContent")
        self._stream_url = client.address.url(f"{model.path}:streamGenerateContent?alt=sse")
        self._count_url = client.address.url(f"{model.path}:countTokens")

    def write(self, request: Request, *, stream: bool) -> Call:
        payload = {**ask.prompt(request.prompt, self._model), **ask.settings(request, self._model)}
        return self._client.call(self._stream_url if stream else self._url, encode(payload))

    def read(self, request: Request, words: str, headers: Mapping[str, str]) -> Completion:
        return answer.completion(words, lambda failed: self._client.failed(failed, 200, headers), n=request.n)

    def reader(self, request: Request) -> StreamReader:
        return answer.ContentReader(lambda failed: self._client.failed(failed, 200, {}))

    async def acount_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, as the provider counts them; costs a request, and no money."""
        whole = {"model": self._model.path, **ask.prompt(prompt, self._model)}
        call = self._client.call(self._count_url, encode({"generateContentRequest": whole}))
        return await self._client.fetch(call, counted("totalTokens"))


_BASE_URL = "https://generativelanguage.googleapis.com/v1beta"
_VERSION = "/v1beta"
capabilities = replace(
    capabilities_of(model_of(None)), tasks=frozenset({"generate", "embed"}), roles=frozenset(roles()),
    dimensions=True,
)  # fmt: skip
"""What most models can do; a model's own row decides."""


def open_engine(model: str | None = None, *, task: Task = "generate", base_url: str | None = None,
                api_key: str | Secret | None = None, **options: Any) -> Any:  # fmt: skip
    """An engine for one task; nothing is sent before the first request."""
    if task not in capabilities.tasks:
        raise Unsupported("gemini", f"the task {task}")
    if not model:
        raise InvalidInput("backend 'gemini' needs a model's name", hint="such as gemini-2.5-flash")
    refuse_rest("gemini", options)
    url = _address(named(base_url) or os.environ.get("GOOGLE_GEMINI_BASE_URL") or _BASE_URL)
    secret = key(api_key, "GEMINI_API_KEY", "GOOGLE_API_KEY")
    if secret is None and not base_url:
        raise InvalidInput("Gemini needs a key", hint="pass api_key= or set GEMINI_API_KEY")
    mask = Mask([secret.reveal()] if secret else [])
    signer = StaticKey({"x-goog-api-key": secret} if secret else {})
    client = connect(url, signer, options, mask=mask, errors=known_errors(__file__, refine))
    if task == "embed":
        from memserve_gemini.embedding import EmbedEngine

        return EmbedEngine(client, embedding_model(model))

    return GeminiEngine(client, model_of(model))


def _address(base_url: str) -> str:
    """The base with its version; a key has no place in a URL, which proxies and servers write down."""
    found = parse_address(base_url)
    if found.query:
        raise InvalidInput("Gemini's base_url takes no query", hint="the key goes into api_key=")
    return base_url if found.path else base_url.rstrip("/") + _VERSION


_DAILY = re.compile(r"PerDay|per day", re.IGNORECASE)
_DELAY = re.compile(r"retry in (\d+(?:\.\d+)?)\s*s", re.IGNORECASE)


def refine(words: Words, headers: Mapping[str, str]) -> Words:
    """The failure with its reasons first and its pause in seconds."""
    details = [each for each in words.fields.get("details") or () if isinstance(each, dict)]
    reasons = tuple(str(each["reason"]) for each in details if each.get("reason"))
    daily = any(_DAILY.search(text) for text in (words.message, *_quotas(details)))
    front = ("quota_per_day",) if daily and "RESOURCE_EXHAUSTED" in words.codes else ()
    return replace(words, codes=(*front, *reasons, *words.codes), wait=_wait(words, details))


def _quotas(details: list[dict[str, Any]]) -> Iterator[str]:
    for each in details:
        yield str((each.get("metadata") or {}).get("quota_limit", ""))
        for violation in each.get("violations") or ():
            yield str(violation.get("quotaId", "")) if isinstance(violation, dict) else ""


def _wait(words: Words, details: list[dict[str, Any]]) -> float | None:
    delays = (str(each["retryDelay"]).removesuffix("s") for each in details if "retryDelay" in each)
    stated = next(delays, None)
    spoken = _DELAY.search(words.message)
    try:
        seconds = float(stated if stated is not None else spoken.group(1) if spoken else "")
    except ValueError:
        return words.wait
    return seconds if 0 <= seconds < math.inf else words.wait
