"""What the wire does not tell of a server: said by the caller, or asked of its list of models."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memserve.client.background_loop import BackgroundLoop
from memserve.errors import InvalidInput, NotFound
from memserve.http import HttpClient
from memserve.protocol import Capabilities

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
