"""Opens Pangu or a service of ModelArts (route, credentials, client) and asks it for completions."""

import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from memserve import files
from memserve.errors import InvalidInput, MemserveError, Unsupported
from memserve.http import (
    Call,
    HttpClient,
    HttpEngine,
    Mask,
    Secret,
    StreamReader,
    connect,
    known_errors,
    refuse_rest,
)
from memserve.http.address import named
from memserve.http.body import bad, parse
from memserve.http.chat import ChatReader, completion, encode, failure_in, messages
from memserve.http.failure import Words
from memserve.protocol import Completion, Delta, Raw, Request, Task
from memserve_pangu import credential, interface
from memserve_pangu.guard import Guard, Guarded
from memserve_pangu.interface import EXTRA, Interface, interfaces
from memserve_pangu.interface import capabilities as capabilities_of

_PLAIN = ("temperature", "top_p", "max_tokens")


class PanguEngine(HttpEngine):
    """Asks one deployment (V1), or one model by its name (V2)."""

    def __init__(self, client: HttpClient, interface: Interface, model: str | None, guard: Guard,
                 signer: Guarded) -> None:  # fmt: skip
        if interface.model and not model:
            raise InvalidInput("Pangu's V2 needs a model's name", hint="generator('NAME', backend='pangu')")
        super().__init__(client, capabilities_of(interface, model))
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


_REASONS = {"eos_token": "stop", "stop_sequence": "stop"}


class InputsEngine(PanguEngine):
    """Posts `inputs` and `parameters` to the address as it stands (ModelArts, MindIE, TGI): text to text."""

    def write(self, request: Request, *, stream: bool) -> Call:
        assert isinstance(request.prompt, Raw)  # the capabilities name nothing else
        given = {
            "max_new_tokens": request.max_tokens, "top_k": request.top_k, "seed": request.seed,
            "temperature": request.temperature or None, "do_sample": bool(request.temperature),
            "top_p": request.top_p if request.temperature and request.top_p != 1 else None, "details": True,
        }  # fmt: skip
        parameters = {name: value for name, value in given.items() if value is not None}
        body = {"inputs": request.prompt.text, "parameters": parameters, "stream": stream}
        return self._client.call(self._client.address.url(""), encode(body))

    def read(self, request: Request, words: str, headers: Mapping[str, str]) -> Completion:
        return _whole(words, lambda failed: self._client.failed(failed, 200, headers))

    def reader(self, request: Request) -> StreamReader:
        return InputsReader(lambda words: self._client.failed(words, 200, {}))


class InputsReader(ChatReader):
    """Reads events with a token each; the one that holds the whole text is the last."""

    @property
    def done(self) -> bool:
        return self._finished

    def whole(self, words: str, headers: Mapping[str, str]) -> list[Delta]:
        full = _whole(words, self._fail)
        return [Delta(full.text or "", full.finish_reason, full.usage)]

    def _chunk(self, chunk: Any) -> list[Delta]:
        token = chunk.get("token") if isinstance(chunk, dict) else None
        if not isinstance(token, dict):
            raise bad("an event of the stream has no token")
        return super()._chunk(_told("delta", "" if token.get("special") else token.get("text"), chunk))


def _whole(words: str, fail: Callable[[Words], MemserveError]) -> Completion:
    """What a whole body holds; some servers put it into a list."""
    found = parse(words)
    one = found[0] if isinstance(found, list) and len(found) == 1 else found
    failed = failure_in(one)
    if failed is not None:
        raise fail(failed)
    if not isinstance(one, dict) or not isinstance(one.get("generated_text"), str):
        raise bad("the answer has no generated_text")
    return completion(_told("message", one["generated_text"], one))


def _told(key: str, text: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, or a piece of it, in the form of chat completions."""
    details = found.get("details")
    facts: Mapping[str, Any] = details if isinstance(details, dict) else {}
    ended = found.get("generated_text") is not None
    reason = facts.get("finish_reason", "stop" if ended and key == "delta" else None)
    choice = {"index": 0, key: {"content": text}, "finish_reason": _REASONS.get(reason, reason)}
    prefill = facts.get("prefill")
    read = len(prefill) if isinstance(prefill, list) and prefill else facts.get("input_length")
    usage = {"prompt_tokens": read, "completion_tokens": facts.get("generated_tokens")}
    return {"choices": [choice], "usage": usage if facts else None}


_REGION = "cn-southwest-2"
_TAKEN = ("api", "region", "project_id", "deployment_id", *credential.OPTIONS)
capabilities = capabilities_of(interfaces()["v1"], None)
"""What Pangu can do through its own interface, V1."""


def open_engine(model: str | None = None, *, task: Task = "generate", base_url: str | None = None,
                api_key: str | Secret | None = None, **options: Any) -> Any:  # fmt: skip
    """An engine; nothing is sent before the first request."""

    if task != "generate":
        raise Unsupported("pangu", f"the task {task}")
    refuse_rest("pangu", options, *_TAKEN)
    region = options.get("region") or _REGION
    project_id = options.get("project_id") or os.environ.get("HUAWEICLOUD_SDK_PROJECT_ID")
    deployment_id = _deployment(model, base_url, options)
    base_url = named(base_url) or os.environ.get("PANGU_BASE_URL")
    way = interface.choose(options.get("api"), base_url, region, project_id, deployment_id)
    found = credential.find({**options, "api_key": api_key}, way.interface)
    mask = Mask(found.secrets)
    guard = Guard()
    way_in = credential.signer(found, way.interface, region, project_id, options, mask)
    signer = Guarded(way_in, guard)
    errors = known_errors(__file__, refine)
    client = connect(way.base_url, signer, options, mask=mask, errors=errors)
    parts = (client, way.interface, model or deployment_id, guard, signer)
    return InputsEngine(*parts) if way.interface.name == "inputs" else PanguEngine(*parts)


def _deployment(model: str | None, base_url: str | None, options: Mapping[str, Any]) -> str | None:
    """The deployment that V1 asks; without one of its own the model's name is taken for it.

    A base_url alone means V2, so the environment does not turn it into V1.
    """
    own: str | None = options.get("deployment_id")
    wants_v1 = options.get("project_id") or options.get("api") == "v1"
    if own or options.get("api") == "v2" or (base_url and not wants_v1):
        return own
    elsewhere = os.environ.get("PANGU_BASE_URL") and not wants_v1
    return os.environ.get("PANGU_DEPLOYMENT_ID") or (None if elsewhere else model)


@cache
def _pauses() -> list[dict[str, Any]]:
    return list(files.table(__file__, "errors.json")["pauses"])


def refine(words: Words, headers: Mapping[str, str]) -> Words:
    """The failure with its details in the message and its pause as seconds."""
    details = words.fields.get("details")
    message = f"{words.message} {details}" if isinstance(details, str) and details else words.message
    pauses = (row["seconds"] for row in _pauses() if re.search(row["pattern"], message, re.I))
    return replace(words, message=message, wait=next(pauses, words.wait))
