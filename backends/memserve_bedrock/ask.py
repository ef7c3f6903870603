"""Writes a request in the shape of Converse, as a model's row of models.json has it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from memserve import files
from memserve.errors import InvalidInput, Unsupported
from memserve.http.chat import fill, message_parts
from memserve.http.chat.message_parts import Image, Turn
from memserve.protocol import DEFAULT_MAX_TOKENS, Capabilities, FinishReason, Prompt, Request, ToolCall

EXTRA = "bedrock_"
LEAST = 1024
"""The smallest budget of thought that Claude takes."""


@dataclass(frozen=True)
class Model:
    """How one model is asked."""

    name: str | None
    temperature: bool
    top_p: bool
    top_k: Any
    schema: bool
    tools: bool
    images: bool
    counts: bool
    thinking: Mapping[str, Any] = field(default_factory=dict)
    """What goes into the model's own field of that name, with the budget for "$"."""


@cache
def _table(name: str) -> dict[str, Any]:
    return dict(files.table(__file__, name))


def model(name: str | None) -> Model:
    """The row of a model."""
    rows = _table("models.json")["models"]
    row = next(row for row in rows if re.search(row["pattern"], name or "", re.IGNORECASE))
    return Model(name, **{key: value for key, value in row.items() if key not in ("pattern", "source")})


@cache
def embedders() -> list[dict[str, Any]]:
    """How each family of embedding models is asked."""
    return list(_table("models.json")["embedders"])


@cache
def extras() -> dict[str, str]:
    """The field of each extra setting."""
    return {EXTRA + row["name"]: row["field"] for row in _table("models.json")["extras"]}


@cache
def finish_reasons() -> dict[str, FinishReason | None]:
    """What each stopReason means."""
    return {row["said"]: row["means"] for row in _table("models.json")["reasons"]}


def capabilities(known: Model) -> Capabilities:
    """What a model can do."""
    return Capabilities(
        backend="bedrock", model=known.name, chat=True, max_tokens=True, stop=True, usage=True,
        temperature=known.temperature, max_temperature=1.0, top_p=known.top_p,
        top_k=known.top_k is not None, schema=known.schema, tools=known.tools, images=known.images,
        thinking=frozenset({"off", *known.thinking}), stream=True, count_tokens=known.counts,
        cache_marks=4096 if _CACHING.search(known.name or "") else 0,
        extras=frozenset(extras()), cancel=True,
    )  # fmt: skip


_CACHING = re.compile(r"claude-(3-7|3-5-haiku|[a-z]+-[4-9])|nova-(micro|lite|pro|premier)", re.IGNORECASE)
"""docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html: supported models."""
_CHOICES = {"auto": "auto", "required": "any", "function": "tool"}
_FORMATS = {
    "image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp",
}  # fmt: skip


def prompt(words: Prompt) -> dict[str, Any]:
    """The messages and the system text of a prompt; the roles alternate, as Converse wants them."""
    spoken = message_parts.read(words, "bedrock", marks=True)
    pairs = message_parts.merged(_turn(turn) for turn in spoken.turns)
    found: dict[str, Any] = {"messages": [{"role": role, "content": blocks} for role, blocks in pairs]}
    if any(turn.marks for turn in spoken.above):
        return {**found, "system": [block for turn in spoken.above for block in _pieces(turn)]}
    return {**found, "system": [{"text": spoken.system}]} if spoken.system else found


def settings(request: Request, model: Model) -> dict[str, Any]:
    """Everything of a request but its prompt."""
    config: dict[str, Any] = {}
    own, thought = _thinking(request, model)
    if request.max_tokens is not None or thought:
        config["maxTokens"] = (request.max_tokens or DEFAULT_MAX_TOKENS) + thought
    for name, spelled in () if own else (("temperature", "temperature"), ("top_p", "topP")):
        if getattr(request, name) is not None:
            config[spelled] = getattr(request, name)
    if request.stop:
        config["stopSequences"] = list(request.stop)
    found: dict[str, Any] = {"inferenceConfig": config} if config else {}
    found.update({extras()[name]: value for name, value in request.extra.items()})
    if request.top_k is not None:
        own = fill(model.top_k, request.top_k)
    if own:
        found["additionalModelRequestFields"] = {**found.get("additionalModelRequestFields", {}), **own}
    if request.tools and request.tool_choice != "none":
        found["toolConfig"] = _tools(request)
    if request.schema is not None:
        schema = {"schema": json.dumps(request.schema), "name": "answer"}
        form = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        found["outputConfig"] = {"textFormat": form}
    return found


def _thinking(request: Request, model: Model) -> tuple[dict[str, Any], int]:
    """The model's own field for the request's `thinking`, and the tokens of thought that it stands for."""
    wanted = request.thinking
    if not wanted:
        return {}, 0
    drawn = (request.temperature or 1, request.top_p or 1, request.top_k)
    if drawn != (1, 1, None):
        raise Unsupported("bedrock", "temperature, top_p or top_k with thinking", "it takes temperature 1")
    if request.tool_choice not in (None, "auto", "none"):
        raise Unsupported(
            "bedrock", f"tool_choice={request.tool_choice!r} with thinking", "it takes auto and none"
        )
    if wanted is not True and wanted < LEAST:
        raise InvalidInput(f"bedrock takes thinking={LEAST:,} or more, not {wanted}")
    own = model.thinking["on"] if wanted is True else fill(model.thinking["budget"], wanted)
    return {"thinking": own}, own.get("budget_tokens", 0)


def _tools(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {"tools": [_tool(described) for described in request.tools]}
    if request.tool_choice is not None:
        kind, name = message_parts.choice(request.tool_choice)
        if kind not in _CHOICES:
            raise Unsupported("bedrock", f"tool_choice={kind!r}")
        found["toolChoice"] = {_CHOICES[kind]: {"name": name} if name else {}}
    return found


def _tool(described: Mapping[str, Any]) -> dict[str, Any]:
    tool = message_parts.tool(described)
    about = {"description": tool.description} if tool.description else {}
    return {"toolSpec": {"name": tool.name, **about, "inputSchema": {"json": tool.parameters}}}


def _turn(turn: Turn) -> tuple[str, list[dict[str, Any]]]:
    if turn.role == "tool":
        result = {"toolUseId": turn.answers or "", "content": [_piece(piece) for piece in turn.pieces]}
        return "user", [{"toolResult": result}]
    return turn.role, message_parts.signed(turn, _pieces(turn), ("reasoningContent",), _use)


def _use(call: ToolCall) -> dict[str, Any]:
    known = {"toolUseId": call.id, "name": call.name, "input": message_parts.arguments(call)}
    return {"toolUse": known}


def _pieces(turn: Turn) -> list[dict[str, Any]]:
    """Pieces, each with a cache point behind it where it is marked."""
    found: list[dict[str, Any]] = []
    for place, piece in enumerate(turn.pieces):
        if piece or not turn.calls:
            found += [_piece(piece), *([{"cachePoint": {"type": "default"}}] if place in turn.marks else [])]
    return found


def _piece(piece: str | Image) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"text": piece}
    form = _FORMATS.get(piece.media_type or "")
    if form is None:
        kind = piece.media_type or "an address"
        raise Unsupported("bedrock", f"an image as {kind}", "send png, jpeg, gif or webp as data:...;base64,")
    return {"image": {"format": form, "source": {"bytes": piece.data}}}
