"""Writes a request in the shape of the Messages API."""

from collections.abc import Mapping
from typing import Any

from memserve.errors import Unsupported
from memserve.http.chat import message_parts
from memserve.http.chat.message_parts import Image, Turn
from memserve.protocol import DEFAULT_MAX_TOKENS, Prompt, Request
from memserve_anthropic.model import EXTRA

_CHOICES = {"auto": "auto", "none": "none", "required": "any", "function": "tool"}


def prompt(words: Prompt) -> dict[str, Any]:
    """The messages and the system text of a prompt."""
    spoken = message_parts.read(words, "anthropic")
    pairs = message_parts.merged(_turn(turn) for turn in spoken.turns)
    found: dict[str, Any] = {
        "messages": [{"role": role, "content": _short(blocks)} for role, blocks in pairs]
    }
    return {**found, "system": spoken.system} if spoken.system else found


def settings(request: Request) -> dict[str, Any]:
    """Everything of a request but its prompt and its model."""
    extra = {name.removeprefix(EXTRA): value for name, value in request.extra.items()}
    _thinking(request, extra)
    found: dict[str, Any] = {"max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS}
    for name in ("temperature", "top_p", "top_k"):
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


def _thinking(request: Request, extra: Mapping[str, Any]) -> None:
    thinks = (extra.get("thinking") or {}).get("type", "disabled") != "disabled"
    if thinks and request.temperature not in (None, 1):
        raise Unsupported(
            "anthropic", f"temperature={request.temperature:g} with anthropic_thinking", "it takes 1 alone"
        )


def _short(blocks: list[Any]) -> Any:
    """One piece of text alone is sent as a string."""
    only = blocks[0] if len(blocks) == 1 else {}
    return only["text"] if only.get("type") == "text" else blocks


def _turn(turn: Turn) -> tuple[str, list[dict[str, Any]]]:
    if turn.role == "tool":
        result = {"type": "tool_result", "tool_use_id": turn.answers or "", "content": turn.text}
        return "user", [result]
    blocks = [_piece(piece) for piece in turn.pieces if piece or not turn.calls]
    for call in turn.calls:
        known = {"id": call.id, "name": call.name, "input": message_parts.arguments(call)}
        blocks.append({"type": "tool_use", **known})
    return turn.role, blocks


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
