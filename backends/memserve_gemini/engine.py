"""Opens Gemini for generation or embeddings; generateContent, its stream, batch mode, and countTokens."""

import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from memserve.client.vectors import VectorEngine, refuse_bare
from memserve.errors import InvalidInput, MemserveError, Unsupported
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
from memserve.http.engine import answer_of, body_of, error_of, first_answers, object_of, said
from memserve.http.failure import Words
from memserve.protocol import BatchService, Capabilities, Completion, Prompt, Request, Task
from memserve_gemini import answer, ask
from memserve_gemini.ask import EmbeddingModel, Model, embedding_model, path_of, roles
from memserve_gemini.ask import capabilities as capabilities_of
from memserve_gemini.ask import model as model_of


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

    @property
    def batch_service(self) -> BatchService:
        """Batch mode."""

        return Batches(self._client, self, self._model.path)

    async def acount_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, as the provider counts them; costs a request, and no money."""
        whole = {"model": self._model.path, **ask.prompt(prompt, self._model)}
        call = self._client.call(self._count_url, encode({"generateContentRequest": whole}))
        return await self._client.fetch(call, counted("totalTokens"))


class EmbedEngine(VectorEngine):
    """Asks {base_url}/models/{model}:batchEmbedContents."""

    def __init__(self, client: HttpClient, model: EmbeddingModel) -> None:
        known = Capabilities(
            backend="gemini", model=model.name, tasks=frozenset({"embed"}),
            roles=frozenset(roles(model.roles) if model.roles else ()), normalize=True,
            dimensions=model.dimensions, cancel=True,
        )  # fmt: skip
        super().__init__(client, known)
        self.items = model.items
        self._model = model
        self._url = client.address.url(f"{path_of(model.name)}:batchEmbedContents")

    def write(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Call:  # fmt: skip
        refuse_bare("gemini", normalize)
        fields: dict[str, Any] = {"model": path_of(self._model.name)}
        form = "$"
        if role is not None and self._model.roles == "prompts":
            form = roles("prompts")[role]
        elif role is not None:
            fields["taskType"] = roles("roles")[role]
        if dimensions is not None:
            fields["outputDimensionality"] = dimensions
        words = [form.replace("$", text, 1) for text in texts]
        asked = [{**fields, "content": {"parts": [{"text": text}]}} for text in words]
        return self._client.call(self._url, encode({"requests": asked}))

    def read(self, found: Any, headers: Mapping[str, str]) -> tuple[Any, Any]:
        known = found if isinstance(found, dict) else {}
        rows, usage = known.get("embeddings"), known.get("usageMetadata")
        values = [row.get("values") if isinstance(row, dict) else None for row in rows or ()]
        return values, usage.get("promptTokenCount") if isinstance(usage, dict) else None

    def scaled(self, normalize: bool | None, dimensions: int | None) -> bool:
        """Shortened vectors of a model that leaves them short are brought to length one again."""
        return bool(normalize) or (dimensions is not None and not self._model.unit)


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


_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


class Batches:
    """Batches of one model."""

    batch_limits = (1000, 16 << 20)
    """Requests inline are 20 MB at most."""
    batch_least = 1

    def __init__(self, client: HttpClient, engine: HttpEngine, model: str) -> None:
        self._client = client
        self._engine = engine
        self._model = model

    async def submit_batch(self, name: str, requests: Mapping[str, Request]) -> str:
        """Create the batch; its name."""
        bodies = {own: body_of(self._engine, one) for own, one in requests.items()}
        inline = [{"request": body, "metadata": {"key": own}} for own, body in bodies.items()]
        wanted = {"display_name": name, "input_config": {"requests": {"requests": inline}}}
        found = await self._ask(f"{self._model}:batchGenerateContent", encode({"batch": wanted}))
        return str(found["name"])

    async def find_batch(self, name: str, since: float, count: int, others: Collection[str]) -> str | None:
        """The name of the batch that is shown by ours."""
        page = ""
        while True:
            found = await self._ask(f"batches?pageSize=100{page}")
            for row in found.get("operations") or ():
                if (row.get("metadata") or {}).get("displayName") == name:
                    return str(row["name"])
            if not found.get("nextPageToken"):
                return None
            page = f"&pageToken={found['nextPageToken']}"

    async def batch_ended(self, identity: str) -> bool:
        """Whether nothing more will come."""
        found = await self._ask(identity)
        return bool(found.get("done")) or str((found.get("metadata") or {}).get("state")).endswith(_ENDED)

    async def batch_answers(self, identity: str, requests: Mapping[str, Request],
                            ) -> dict[str, Completion | MemserveError]:  # fmt: skip
        """What came of each request; one that is not there was not asked."""
        found = await self._ask(identity)
        if found.get("error"):
            return {own: error_of(self._client, 200, found) for own in requests}
        rows = ((found.get("response") or {}).get("inlinedResponses") or {}).get("inlinedResponses") or ()
        named = [(own, row) for row in rows if (own := _key(row)) in requests]
        return first_answers((own, said(self._told, requests[own], row)) for own, row in named)

    def _told(self, request: Request, row: Mapping[str, Any]) -> Completion | MemserveError:
        if "response" in row:
            return answer_of(self._engine, request, json.dumps(row["response"]))
        return error_of(self._client, 200, dict(row))

    async def _ask(self, path: str, content: bytes | None = None) -> dict[str, Any]:
        url = self._client.address.url(path)
        call = self._client.call(url, content, method="POST" if content else "GET")
        return await self._client.fetch(call, object_of, retried=content is None)


def _key(row: Any) -> str:
    """Which request a row answers; a row that does not say so is nobody's."""
    about = row.get("metadata") if isinstance(row, Mapping) else None
    return str(about.get("key")) if isinstance(about, Mapping) else ""
