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
from memserve.http.keys import carried
from memserve.protocol import Capabilities, Task
from memserve_openai.dialect import EXTRA, RESPONSES, Dialect, choose, owner
from memserve_openai.dialect import capabilities as capabilities_of

_FLAGS = ("deterministic", "tools", "images")
OPTIONS = (*_FLAGS, "context")
"""Options of `open` that replace a field of the capabilities."""
_SHOWN = 200
_OF_CHATS = (
    "raw", "token_ids", "seed", "stop", "n", "top_k", "min_p", "regex", "choices", "template", "score",
    "count_tokens", "truncate", "extras",
)  # fmt: skip
"""What a server that chats does not do over its route of responses."""
_NOT_ROUTED = {"tokenizer", "truncate", "batches", "cancel"}
"""What an endpoint's backend can do and no route of it asks for."""
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


def listed(client: HttpClient, task: Task) -> dict[str, dict[str, Any]]:
    """What the server lists for a task, by name; nothing where it is down or has no list."""
    loop = BackgroundLoop()
    try:
        status, text = loop.run(client.probe(client.address.url("models")))
    finally:
        loop.stop()
    try:
        rows = json.loads(text)["data"] if status == 200 else []
        rows = [{**row, **row.get("tasks", {}).get(task, {})} for row in rows]  # an endpoint of memserve's
        return {str(row["id"]): row for row in rows if row.get("task", task) == task}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _of_row(known: Capabilities, row: Mapping[str, Any]) -> Capabilities:
    """With the context that the row names and, from an endpoint of memserve, what its backend can do."""
    context, told = row.get("max_model_len"), row.get("capabilities")
    if isinstance(context, int) and context > 0:
        known = replace(known, context=context)
    if not isinstance(told, dict) or row.get("owned_by") != "memserve":
        return known
    both = {name: value for name, value in told.items() if isinstance(getattr(known, name, None), bool)}
    found: dict[str, Any] = {n: v for n, v in both.items() if isinstance(v, bool) and n not in _NOT_ROUTED}
    if not told.get("tokenizer"):  # both are asked in token ids
        found.update(score=False, count_tokens=False)
    for name in ("logprobs", "max_stop", "max_n", "max_temperature"):
        value = told.get(name)
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            found[name] = value or (0 if name == "logprobs" else None)
    extras = (str(name).partition("_")[2] for name in told.get("extras") or ())
    thinking = frozenset(map(str, told.get("thinking") or ()))
    return replace(known, **found, thinking=thinking, extras=frozenset(EXTRA + name for name in extras))


def _flag(name: str, value: Any) -> bool:
    found = _WORDS.get(str(value).lower())
    if found is None:
        raise InvalidInput(f"{name} is true or false, not {value!r}")
    return found


_BASE_URL = "https://api.openai.com/v1"
_ROUTES = ("/chat/completions", "/completions", "/embeddings", "/responses")
_TAKEN = ("dialect", "max_tokens_cap", "headers", "prompts", *OPTIONS)
capabilities = replace(
    capabilities_of(choose("generic", "", None), None, "generate"),
    tasks=frozenset({"generate", "embed", "rerank"}),
)
"""What the backend can do at best for a server of which nothing is known."""


def open_engine(model: str | None = None, *, task: Task = "generate", base_url: str | None = None,
                api_key: str | Secret | None = None, **options: Any) -> Any:  # fmt: skip
    """An engine for one task. A server of no known host is asked for its models, which tell whose it is."""
    if not model:
        raise InvalidInput(
            "backend 'openai' needs a model's name", hint="generator('gpt-4o-mini', backend='openai')"
        )
    refuse_rest("openai", options, *(name for name in _TAKEN if name != "prompts" or task == "embed"))
    url = base_url if base_url is not None else os.environ.get("OPENAI_BASE_URL") or _BASE_URL
    if route := next((one for one in _ROUTES if parse(url).path.endswith(one)), None):
        raise InvalidInput(f"base_url ends before the route: leave {route} out")
    named = options.get("dialect")
    dialect = choose(named, parse(url).host, model)
    own = carried(options.get("headers"))
    named_key = any(name.lower() == "authorization" for name in own)
    if named_key and api_key:
        raise InvalidInput("api_key and a header Authorization are two keys: leave one out")
    secret = None if named_key else key(api_key, "OPENAI_API_KEY")
    if secret is None and dialect.needs_key and not own:
        raise InvalidInput(f"{parse(url).host} needs a key", hint="pass api_key= or set OPENAI_API_KEY")
    client = _client(url, secret, own, options)
    ours = named is None and dialect.unknown and "http_client" not in options  # which belongs to one loop
    rows = listed(client, task) if dialect.lists_context or ours else {}
    if ours and rows:
        dialect = choose(owner(rows.values()), "", model)
    if dialect.lists_context and rows and model not in rows:
        served = client.mask(", ".join(rows)[:_SHOWN])
        raise NotFound(f"the server has no model {model!r}: it serves {served}", status=200)
    if options.get("max_tokens_cap") is not None:
        dialect = replace(dialect, max_tokens_cap=options["max_tokens_cap"])
    known = _of_row(capabilities_of(dialect, model, task), rows.get(model, {}))
    return _ENGINES[task](client, dialect, known, options)


def _client(url: str, secret: Secret | None, own: Mapping[str, Secret],
            options: Mapping[str, Any]) -> HttpClient:  # fmt: skip
    mask = Mask()
    headers = dict(own)
    basic = parse(url).authorization
    if secret is not None:
        mask.add(secret.reveal())
        headers["Authorization"] = Secret(f"Bearer {secret.reveal()}")
        if parse(url).host.endswith(".azure.com"):
            headers["api-key"] = secret
    elif basic is not None:
        headers["Authorization"] = Secret(basic)
    mask.add(*(value.reveal() for value in own.values()))
    return connect(url, StaticKey(headers), options, mask=mask, errors=known_errors(__file__))


def _generate(client: HttpClient, dialect: Dialect, known: Capabilities, options: Mapping[str, Any]) -> Any:
    from memserve_openai.generation import ChatEngine

    known = with_facts(known, options)
    if dialect.name == RESPONSES:
        from memserve_openai.responses import ResponsesEngine

        own = capabilities_of(dialect, known.model, "generate")
        return ResponsesEngine(client, dialect, replace(known, **{n: getattr(own, n) for n in _OF_CHATS}))
    return ChatEngine(client, dialect if known.template else replace(dialect, template=None), known)


def _embed(client: HttpClient, dialect: Dialect, known: Capabilities, options: Mapping[str, Any]) -> Any:
    from memserve_openai.pooling import EmbedEngine

    return EmbedEngine(client, dialect, known, options.get("prompts") or {})


def _rerank(client: HttpClient, dialect: Dialect, known: Capabilities, options: Mapping[str, Any]) -> Any:
    from memserve_openai.pooling import RerankEngine

    return RerankEngine(client, dialect, known)


_ENGINES = {"generate": _generate, "embed": _embed, "rerank": _rerank}
