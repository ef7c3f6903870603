"""The Messages API: requests written as a model's row of models.json has it, answers read, even streamed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from memserve import files
from memserve.errors import InvalidInput, MemserveError, Unsupported
from memserve.http import AnswerReader, Event, failure
from memserve.http.body import bad, parse
from memserve.http.chat import failure_in, fill, message_parts
from memserve.http.chat.answer import clean, finish, spent
from memserve.http.chat.message_parts import CACHE, Image, Turn
from memserve.protocol import (
    DEFAULT_MAX_TOKENS,
    DEFAULT_TEMPERATURE,
    DEFAULT_TOP_P,
    Capabilities,
    Completion,
    Delta,
    FinishReason,
    Prompt,
    Request,
    ToolCall,
    Usage,
)

EXTRA = "anthropic_"
_EXTRAS = ("thinking", "metadata", "service_tier", "cache_control", "output_config", "context_management")
CACHES_FROM = 4096
"""Tokens of the shortest prefix that every Claude caches where it is marked; some take 1,024."""
_SAMPLING = ("temperature", "top_p", "top_k")
_SIGNED = ("signature", "data")
"""Of thoughts that Claude wants to see again."""


@cache
def _table(name: str) -> dict[str, Any]:
    return dict(files.table(__file__, name))


@cache
def finish_reasons() -> dict[str, FinishReason | None]:
    """What each stop_reason means."""
    return {row["said"]: row["means"] for row in _table("models.json")["reasons"]}


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
        thinking=frozenset(row["thinking"] or {"off"}), cache_marks=CACHES_FROM if row["tools"] else 0,
        stream=True, count_tokens=True,
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
    if wanted and request.tool_choice not in (None, "auto", "none"):
        raise Unsupported(
            "anthropic", f"tool_choice={request.tool_choice!r} with thinking", "it takes auto and none"
        )
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
        shown = any(not isinstance(piece, str) for piece in turn.pieces)
        told = [_piece(piece) for piece in turn.pieces] if shown else turn.text
        result = {"type": "tool_result", "tool_use_id": turn.answers or "", "content": told}
        return "user", [
            {**result, CACHE: mark} if (mark := next(iter(turn.marks.values()), None)) else result
        ]
    return turn.role, message_parts.signed(turn, _pieces(turn), _SIGNED, _use)


def _use(call: ToolCall) -> dict[str, Any]:
    known = {"id": call.id, "name": call.name, "input": message_parts.arguments(call)}
    return {"type": "tool_use", **known}


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


Fail = Callable[[failure.Words], MemserveError]


def completion(words: str, fail: Fail) -> Completion:
    """The Completion that a body holds, or an error."""
    found = parse(words)
    failed = failure_in(found)
    if failed is not None:
        raise fail(failed)
    if not isinstance(found, dict) or not isinstance(found.get("content"), list):
        raise bad("the answer has no list of content")
    blocks = [block for block in found["content"] if isinstance(block, dict)]
    text = _joined(blocks, "text", "text")
    reason = finish(found.get("stop_reason"), finish_reasons())
    refused = reason == "content_filter"
    return Completion(
        text=None if refused else text,
        finish_reason=reason,
        tool_calls=tuple(message_parts.behind_thoughts(blocks, _is_signed, _call_of)),
        reasoning=_joined(blocks, "thinking", "thinking") or None,
        refusal=(text or "") if refused else None,
        usage=usage(found.get("usage")),
        model=found["model"] if isinstance(found.get("model"), str) else None,
        request_id=found["id"] if isinstance(found.get("id"), str) else None,
    )


def usage(found: Any) -> Usage:
    """Tokens read, whether from a cache or not, and written."""
    cache = "cache_read_input_tokens", "cache_creation_input_tokens"
    return spent(found, ("input_tokens", "output_tokens", *cache))


def _joined(blocks: list[dict[str, Any]], kind: str, key: str) -> str | None:
    pieces = [block.get(key) for block in blocks if block.get("type") == kind]
    if not all(isinstance(piece, str) for piece in pieces):
        raise bad(f"a block of the answer has no {key}")
    return clean("".join(map(str, pieces))) if pieces else None


def _is_signed(block: Mapping[str, Any]) -> bool:
    return "thinking" in str(block.get("type")) and any(map(block.get, _SIGNED))


def _call_of(block: dict[str, Any]) -> ToolCall | None:
    if block.get("type") != "tool_use":
        return None
    if not isinstance(block.get("name"), str):
        raise bad("a tool call of the answer names no tool")
    words = json.dumps(block.get("input") or {}, ensure_ascii=False)
    return ToolCall(str(block.get("id") or ""), block["name"], words)


class MessageReader(AnswerReader):
    """One attempt at a stream of named events."""

    def __init__(self, fail: Fail) -> None:
        super().__init__(fail)
        self._usage: dict[str, Any] = {}
        self._calls: dict[Any, dict[str, Any]] = {}
        self._thoughts: list[dict[str, Any]] = []
        """Since the last call."""

    def take(self, event: Event) -> list[Delta]:
        chunk = parse(event.data)
        if not isinstance(chunk, dict):
            raise bad("an event of the stream is not an object")
        kind = chunk.get("type") or event.name
        if kind == "error" or event.name == "error":
            raise self._fail(failure.read(chunk) or failure.Words("the stream failed"))
        known = {
            "message_start": self._start, "content_block_start": self._block,
            "content_block_delta": self._delta, "message_delta": self._message, "message_stop": self._stop,
        }  # fmt: skip
        return known[kind](chunk) if kind in known else []

    def end(self) -> list[Delta]:
        return self._last(usage(self._usage), (ToolCall(**call) for call in self._calls.values()))

    def whole(self, words: str, headers: Mapping[str, str]) -> list[Delta]:
        full = completion(words, self._fail)
        text = full.text or full.refusal or ""
        return [Delta(text, full.finish_reason, full.usage, full.reasoning or "", full.tool_calls)]

    def _start(self, chunk: dict[str, Any]) -> list[Delta]:
        self._count((chunk.get("message") or {}).get("usage"))
        return []

    def _block(self, chunk: dict[str, Any]) -> list[Delta]:
        block = chunk.get("content_block") or {}
        if "thinking" in str(block.get("type")):
            self._thoughts.append(dict(block))
        if block.get("type") == "tool_use":
            self._calls[chunk.get("index")] = {
                "id": str(block.get("id") or ""), "name": str(block.get("name") or ""), "arguments": "",
                "signature": message_parts.signature(list(filter(_is_signed, self._thoughts))),
            }  # fmt: skip
            self._thoughts = []
        return [Delta(clean(block["text"]))] if block.get("text") else []

    def _delta(self, chunk: dict[str, Any]) -> list[Delta]:
        delta = chunk.get("delta") or {}
        if delta.get("type") == "input_json_delta" and chunk.get("index") in self._calls:
            self._calls[chunk["index"]]["arguments"] += str(delta.get("partial_json") or "")
        for name in ("thinking", "signature"):
            if self._thoughts and delta.get("type") == f"{name}_delta":
                thought = self._thoughts[-1]
                thought[name] = (thought.get(name) or "") + str(delta.get(name) or "")
        if delta.get("thinking"):
            return [Delta(reasoning=clean(delta["thinking"]))]
        return [Delta(clean(delta["text"]))] if delta.get("text") else []

    def _message(self, chunk: dict[str, Any]) -> list[Delta]:
        said = (chunk.get("delta") or {}).get("stop_reason")
        if said:
            self._finish = finish(said, finish_reasons())
            self._finished = True
        self._count(chunk.get("usage"))
        return []

    def _stop(self, chunk: dict[str, Any]) -> list[Delta]:
        self._done = True
        return []

    def _count(self, found: Any) -> None:
        if isinstance(found, dict):
            self._usage.update({name: value for name, value in found.items() if value is not None})
