"""Opens and drives the Messages API."""

import os
from collections.abc import Mapping
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
from memserve.http.body import counted
from memserve.http.chat import encode
from memserve.protocol import Capabilities, Completion, Prompt, Request, Task
from memserve_anthropic import answer, ask
from memserve_anthropic.ask import capabilities as capabilities_of

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
        payload = {"model": self.capabilities.model, **ask.prompt(request.prompt)}
        payload.update(ask.settings(request, self.capabilities.model))
        if stream:
            payload["stream"] = True
        return self._client.call(self._url, encode(payload), headers=self._headers)

    def read(self, request: Request, words: str, headers: Mapping[str, str]) -> Completion:
        return answer.completion(words, lambda failed: self._client.failed(failed, 200, headers))

    def reader(self, request: Request) -> StreamReader:
        return answer.MessageReader(lambda failed: self._client.failed(failed, 200, {}))

    async def acount_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, as the provider counts them; costs a request, and no money."""
        payload = encode({"model": self.capabilities.model, **ask.prompt(prompt)})
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
