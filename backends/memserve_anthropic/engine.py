"""Opens and drives the Messages API and its batches."""

import json
import os
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from memserve.errors import InvalidInput, MemserveError, ServerFailed, Unsupported
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
from memserve.http.body import counted
from memserve.http.chat import encode
from memserve.http.engine import answer_of, body_of, error_of, first_answers, object_of, rows, said
from memserve.protocol import BatchService, Capabilities, Completion, Prompt, Request, Task
from memserve_anthropic import messages
from memserve_anthropic.messages import capabilities as capabilities_of

VERSION = "2023-06-01"
"""The API's version. Pinned, because the newest one that the SDK sends has other parameters."""
_BASE_URL = "https://api.anthropic.com"
_TAKEN = ("auth_token", "version", "beta", "sampling")
capabilities = capabilities_of("claude-haiku-4-5")
"""What most models can do; a model's own row decides."""


class AnthropicEngine(HttpEngine):
    """Asks {base_url}/messages."""

    def __init__(self, client: HttpClient, known: Capabilities, headers: Mapping[str, str]) -> None:
        super().__init__(client, known)
        self._headers = headers
        self._url = client.address.url("messages")
        self._count_url = client.address.url("messages/count_tokens")

    @property
    def identity(self) -> Mapping[str, str]:
        return {**super().identity, "version": self._headers["anthropic-version"]}

    def write(self, request: Request, *, stream: bool) -> Call:
        payload = {"model": self.capabilities.model, **messages.prompt(request.prompt)}
        payload.update(messages.settings(request, self.capabilities.model))
        if stream:
            payload["stream"] = True
        return self._client.call(self._url, encode(payload), headers=self._headers)

    def read(self, request: Request, words: str, headers: Mapping[str, str]) -> Completion:
        return messages.completion(words, lambda failed: self._client.failed(failed, 200, headers))

    def reader(self, request: Request) -> StreamReader:
        return messages.MessageReader(lambda failed: self._client.failed(failed, 200, {}))

    @property
    def batch_service(self) -> BatchService:
        """The Message Batches API."""

        return Batches(self._client, self, self._headers)

    async def acount_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, as the provider counts them; costs a request, and no money."""
        payload = encode({"model": self.capabilities.model, **messages.prompt(prompt)})
        call = self._client.call(self._count_url, payload, headers=self._headers)
        return await self._client.fetch(call, counted("input_tokens"))


def open_engine(model: str | None = None, *, task: Task = "generate", base_url: str | None = None,
                api_key: str | Secret | None = None, **options: Any) -> Any:  # fmt: skip
    """An engine; nothing is sent before the first request."""
    if task != "generate":
        raise Unsupported("anthropic", f"the task {task}")
    if not model:
        raise InvalidInput("backend 'anthropic' needs a model's name", hint="such as claude-haiku-4-5")
    refuse_rest("anthropic", options, *_TAKEN)
    base = (named(base_url) or os.environ.get("ANTHROPIC_BASE_URL") or _BASE_URL).rstrip("/")
    url = base if base.endswith("/v1") else f"{base}/v1"
    secrets = _secrets(api_key, options, required=not base_url)
    mask = Mask(secret.reveal().removeprefix("Bearer ") for secret in secrets.values())
    client = connect(url, StaticKey(secrets), options, mask=mask, errors=known_errors(__file__))
    headers = {"anthropic-version": options.get("version") or VERSION}
    if options.get("beta"):
        headers["anthropic-beta"] = ",".join(options["beta"])
    known = capabilities_of(model, sampling=options.get("sampling"))
    return AnthropicEngine(client, known, headers)


def _secrets(api_key: str | Secret | None, options: Mapping[str, Any], *,
             required: bool) -> dict[str, Secret]:  # fmt: skip
    token = key(options.get("auth_token"), *(() if api_key else ("ANTHROPIC_AUTH_TOKEN",)))
    if token is not None:
        return {"Authorization": Secret(f"Bearer {token.reveal()}")}
    secret = key(api_key, "ANTHROPIC_API_KEY")
    if secret is None and required:
        raise InvalidInput("Anthropic needs a key", hint="pass api_key= or set ANTHROPIC_API_KEY")
    return {} if secret is None else {"x-api-key": secret}


_EARLIER = 120.0
"""Seconds that the server's clock may be behind ours."""


class Batches:
    """Batches of one model."""

    batch_limits = (5000, 32 << 20)
    batch_least = 1

    def __init__(self, client: HttpClient, engine: HttpEngine, headers: Mapping[str, str]) -> None:
        self._client = client
        self._engine = engine
        self._headers = headers

    async def submit_batch(self, name: str, requests: Mapping[str, Request]) -> str:
        """Create the batch; its id."""
        wanted = [{"custom_id": own, "params": body_of(self._engine, one)} for own, one in requests.items()]
        found = await self._ask("", encode({"requests": wanted}))
        return str(found["id"])

    async def find_batch(self, name: str, since: float, count: int, others: Collection[str]) -> str | None:
        """The id of a batch that may be this one: as large, made since, and nobody else's."""
        after = ""
        while True:
            page = await self._ask(f"?limit=100{after}")
            for row in page.get("data") or ():
                if _made(row) < since - _EARLIER:
                    return None
                if row["id"] not in others and sum((row.get("request_counts") or {}).values()) == count:
                    return str(row["id"])
            if not page.get("has_more") or not page.get("data"):
                return None
            after = f"&after_id={page['data'][-1]['id']}"

    async def batch_ended(self, identity: str) -> bool:
        """Whether nothing more will come."""
        return (await self._ask(f"/{identity}")).get("processing_status") == "ended"

    async def batch_answers(self, identity: str, requests: Mapping[str, Request],
                            ) -> dict[str, Completion | MemserveError] | None:  # fmt: skip
        """What came of each request; None: they are another batch's."""
        call = self._call(f"/{identity}/results")
        ours = [
            (own, said(self._told, requests[own], row.get("result") or {}))
            for row in await self._client.fetch(call, rows) if (own := str(row.get("custom_id"))) in requests
        ]  # fmt: skip
        return None if requests and not ours else first_answers(ours)

    def _told(self, request: Request, result: Mapping[str, Any]) -> Completion | MemserveError:
        if result.get("type") == "succeeded":
            return answer_of(self._engine, request, json.dumps(result.get("message")))
        if result.get("type") == "errored":
            return error_of(self._client, 200, result.get("error"))
        return ServerFailed(f"the batch ended before this request was answered ({result.get('type')})")

    async def _ask(self, path: str, content: bytes | None = None) -> dict[str, Any]:
        return await self._client.fetch(self._call(path, content), object_of, retried=content is None)

    def _call(self, path: str, content: bytes | None = None) -> Any:
        url = self._client.address.url(f"messages/batches{path}")
        return self._client.call(url, content, method="POST" if content else "GET", headers=self._headers)


def _made(row: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(row.get("created_at")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return float("inf")
