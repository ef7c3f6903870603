"""Writes a request in the shape of the Messages API, as a model's row of models.json has it."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from memserve import files
from memserve.errors import InvalidInput, Unsupported
from memserve.http.chat import fill, message_parts
from memserve.http.chat.message_parts import CACHE, Image, Turn
from memserve.protocol import (
    DEFAULT_MAX_TOKENS,
    DEFAULT_TEMPERATURE,
    DEFAULT_TOP_P,
    Capabilities,
    FinishReason,
    Prompt,
    Request,
)

EXTRA = "anthropic_"
_EXTRAS = ("thinking", "metadata", "service_tier", "cache_control", "output_config", "context_management")
_SAMPLING = ("temperature", "top_p", "top_k")


@cache
def _table(name: str) -> dict[str, Any]:
    return dict(files.table(__file__, name))


@cache
def finish_reasons() -> dict[str, FinishReason | None]:
    """What each stop_reason means."""
    return {row["said"]: row["means"] for row in _table("finish.json")["reasons"]}


def _row(model: str | None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = _table("models.json")["models"]
    return next(row for row in rows if re.search(row["pattern"], model or "", re.IGNORECASE))


def thinking(model: str | None) -> dict[str, Any]:
    """How a model is asked to think; nothing for one that does not."""
    return dict(_row(model)["thinking"])


def capabilities(model: str | None, *, sampling: bool | None = None) -> Capabilities:
    """What a model can do; `sampling` overrules the row, for a model that is newer than the table."""
    row = _row(model)
    if sampling is not None:
        row = {**row, **dict.fromkeys(_SAMPLING, sampling)}
    return Capabilities(
        backend="anthropic", model=model, chat=True, max_tokens=True, stop=True, usage=True,
        temperature=row["temperature"], max_temperature=1.0, top_p=row["top_p"], top_k=row["top_k"],
        schema=row["schema"], tools=row["tools"], images=row["images"],
        thinking=frozenset(row["thinking"] or {"off"}), stream=True, count_tokens=True,
        extras=frozenset(EXTRA + name for name in _EXTRAS), cancel=True,
    )  # fmt: skip


LEAST = 1024
"""The smallest budget of thought that the API takes."""
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "function": "tool"}


def prompt(words: Prompt) -> dict[str, Any]:
    """The messages and the system text of a prompt."""
    spoken = message_parts.read(words, "anthropic", marks=True)
    pairs = message_parts.merged(_turn(turn) for turn in spoken.turns)
    found: dict[str, Any] = {
        "messages": [{"role": role, "content": _short(blocks)} for role, blocks in pairs]
    }
    if any(turn.marks for turn in spoken.above):
        return {**found, "system": [block for turn in spoken.above for block in _pieces(turn)]}
    return {**found, "system": spoken.system} if spoken.system else found


def settings(request: Request, model: str | None) -> dict[str, Any]:
    """Everything of a request but its prompt and its model."""
    extra = {name.removeprefix(EXTRA): value for name, value in request.extra.items()}
    _sampled(request, extra)
    found: dict[str, Any] = _thinking(request, model)
    thought = found.get("thinking", {}).get("budget_tokens", 0)
    found["max_tokens"] = (request.max_tokens or DEFAULT_MAX_TOKENS) + thought
    thinks = request.thinking and "thinking" in found
    for name in () if thinks else ("temperature", "top_p", "top_k"):
        if getattr(request, name) is not None:
            found[name] = getattr(request, name)
    if request.stop:
        found["stop_sequences"] = list(request.stop)
    if request.tools:
        found["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        kind, function = message_parts.choice(request.tool_choice)
        found["tool_choice"] = {"type": _CHOICES[kind], **({"name": function} if function else {})}
    found.update(extra)
    if request.schema is not None:
        form = {"type": "json_schema", "schema": request.schema}
        found["output_config"] = {**extra.get("output_config", {}), "format": form}
    return found


def _thinking(request: Request, model: str | None) -> dict[str, Any]:
    """The request's `thinking`, with which sampling settings are not sent: temperature is 1 then."""
    wanted = request.thinking
    if wanted is None:
        return {}
    if wanted and request.temperature not in (None, DEFAULT_TEMPERATURE, 1):
        raise Unsupported(
            "anthropic", f"temperature={request.temperature:g} with thinking", "it takes 1 alone"
        )
    if wanted and (request.top_k or request.top_p not in (None, DEFAULT_TOP_P)):
        raise Unsupported("anthropic", "top_p and top_k with thinking")
    if isinstance(wanted, bool):
        return {"thinking": thinking(model)["on" if wanted else "off"]} if thinking(model) else {}
    if wanted < LEAST:
        raise InvalidInput(f"anthropic takes thinking={LEAST:,} or more, not {wanted}")
    return {"thinking": fill(thinking(model)["budget"], wanted)}


def _sampled(request: Request, extra: Mapping[str, Any]) -> None:
    thinks = (extra.get("thinking") or {}).get("type", "disabled") != "disabled"
    if thinks and request.temperature not in (None, 1):
        raise Unsupported(
            "anthropic", f"temperature={request.temperature:g} with anthropic_thinking", "it takes 1 alone"
        )


def _short(blocks: list[Any]) -> Any:
    """One piece of text alone is sent as a string."""
    only = blocks[0] if len(blocks) == 1 else {}
    return only["text"] if set(only) == {"type", "text"} else blocks


def _turn(turn: Turn) -> tuple[str, list[dict[str, Any]]]:
    if turn.role == "tool":
        result = {"type": "tool_result", "tool_use_id": turn.answers or "", "content": turn.text}
        return "user", [
            {**result, CACHE: mark} if (mark := next(iter(turn.marks.values()), None)) else result
        ]
    blocks = _pieces(turn)
    for call in turn.calls:
        known = {"id": call.id, "name": call.name, "input": message_parts.arguments(call)}
        blocks.append({"type": "tool_use", **known})
    return turn.role, blocks


def _pieces(turn: Turn) -> list[dict[str, Any]]:
    marks = {place: {CACHE: mark} for place, mark in turn.marks.items()}
    known = enumerate(turn.pieces)
    return [{**_piece(each), **marks.get(place, {})} for place, each in known if each or not turn.calls]


def _piece(piece: str | Image) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    if piece.url is not None:
        return {"type": "image", "source": {"type": "url", "url": piece.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": piece.media_type, "data": piece.data}}


def _tool(described: Mapping[str, Any]) -> dict[str, Any]:
    if "function" not in described:
        return dict(described)
    tool = message_parts.tool(described)
    about = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **about, "input_schema": tool.parameters}
