"""Opens engines for the three tasks: generation, embedding, reranking."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memserve.client.async_driver import BackgroundLoop
from memserve.errors import InvalidInput, NotFound
from memserve.http import HttpClient, Mask, Secret, StaticKey, connect, key, known_errors, refuse_rest
from memserve.http.address import parse
from memserve.protocol import Capabilities, Task
from memserve_openai.dialect import Dialect, choose
from memserve_openai.dialect import capabilities as capabilities_of

_FLAGS = ("deterministic", "tools", "images")
OPTIONS = (*_FLAGS, "context")
"""Options of `open` that replace a field of the capabilities."""
_SHOWN = 200
_WORDS = {"true": True, "false": False, "1": True, "0": False}


def with_facts(capabilities: Capabilities, options: Mapping[str, Any]) -> Capabilities:
    """The capabilities as the caller knows them better: deterministic=, tools=, images=, context=."""
    known: dict[str, Any] = {n: _flag(n, options[n]) for n in _FLAGS if options.get(n) is not None}
    context = options.get("context")
    if context is not None:
        if isinstance(context, bool) or not str(context).isdigit() or int(context) < 1:
            raise InvalidInput(f"context is a whole number of tokens, not {context!r}")
        known["context"] = int(context)
    return replace(capabilities, **known)


def context_of(client: HttpClient, model: str) -> int | None:
    """The context that vLLM's list of models names; None where the server is down or does not say.

    A model that is not on the list is `NotFound` at once.
    """
    loop = BackgroundLoop()
    try:
        status, text = loop.run(client.probe(client.address.url("models")))
    finally:
        loop.stop()
    try:
        rows = json.loads(text)["data"] if status == 200 else []
        limits = {str(row["id"]): row.get("max_model_len") for row in rows}
    except (ValueError, KeyError, TypeError):
        return None
    if limits and model not in limits:
        served = client.mask(", ".join(limits)[:_SHOWN])
        raise NotFound(f"the server has no model {model!r}: it serves {served}", status=status)
    limit = limits.get(model)
    return limit if isinstance(limit, int) else None


def _flag(name: str, value: Any) -> bool:
    found = _WORDS.get(str(value).lower())
    if found is None:
        raise InvalidInput(f"{name} is true or false, not {value!r}")
    return found


_BASE_URL = "https://api.openai.com/v1"
_TAKEN = ("dialect", "max_tokens_cap", "headers", "prompts", *OPTIONS)
capabilities = replace(
    capabilities_of(choose("generic", "", None), None, "generate"),
    tasks=frozenset({"generate", "embed", "rerank"}),
)
"""What the backend can do at best for a server of which nothing is known."""


def open_engine(model: str | None = None, *, task: Task = "generate", base_url: str | None = None,
                api_key: str | Secret | None = None, **options: Any) -> Any:  # fmt: skip
    """An engine for one task. Nothing is sent before the first request, but vLLM is asked for its context."""
    if not model:
        raise InvalidInput(
            "backend 'openai' needs a model's name", hint="generator('gpt-4o-mini', backend='openai')"
        )
    refuse_rest("openai", options, *_TAKEN)
    url = base_url if base_url is not None else os.environ.get("OPENAI_BASE_URL") or _BASE_URL
    dialect = choose(options.get("dialect"), parse(url).host, model)
    if options.get("max_tokens_cap") is not None:
        dialect = replace(dialect, max_tokens_cap=options["max_tokens_cap"])
    secret = key(api_key, "OPENAI_API_KEY")
    if secret is None and dialect.needs_key and not options.get("headers"):
        raise InvalidInput(f"{parse(url).host} needs a key", hint="pass api_key= or set OPENAI_API_KEY")
    client = _client(url, secret, options)
    return _ENGINES[task](client, dialect, model, options)


def _client(url: str, secret: Secret | None, options: Mapping[str, Any]) -> HttpClient:
    mask = Mask()
    extra = {name: Secret(value) for name, value in (options.get("headers") or {}).items()}
    headers = dict(extra)
    basic = parse(url).authorization
    if secret is not None:
        mask.add(secret.reveal())
        headers["Authorization"] = Secret(f"Bearer {secret.reveal()}")
        if parse(url).host.endswith(".azure.com"):
            headers["api-key"] = secret
    elif basic is not None:
        headers["Authorization"] = Secret(basic)
    mask.add(*(value.reveal() for value in extra.values()))
    return connect(url, StaticKey(headers), options, mask=mask, errors=known_errors(__file__))


def _generate(client: HttpClient, dialect: Dialect, model: str, options: Mapping[str, Any]) -> Any:
    from memserve_openai.generation import ChatEngine

    known = with_facts(capabilities_of(dialect, model, "generate"), options)
    if known.context is None and dialect.lists_context:
        known = replace(known, context=context_of(client, model))
    return ChatEngine(client, dialect, known)


def _embed(client: HttpClient, dialect: Dialect, model: str, options: Mapping[str, Any]) -> Any:
    from memserve_openai.pooling import EmbedEngine

    return EmbedEngine(client, dialect, model, options.get("prompts") or {})


def _rerank(client: HttpClient, dialect: Dialect, model: str, options: Mapping[str, Any]) -> Any:
    from memserve_openai.pooling import RerankEngine

    return RerankEngine(client, dialect, model)


_ENGINES = {"generate": _generate, "embed": _embed, "rerank": _rerank}
