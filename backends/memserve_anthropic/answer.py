"""Reads the answers of the Messages API, whole or streamed."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from memserve.errors import ConnectionFailed, MemserveError
from memserve.http import Event, StreamReader, failure
from memserve.http.body import bad, parse
from memserve.http.chat import failure_in
from memserve.http.chat.answer import clean, count, finish
from memserve.protocol import Completion, Delta, FinishReason, ToolCall, Usage
from memserve_anthropic.ask import finish_reasons

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
        tool_calls=tuple(_call(block) for block in blocks if block.get("type") == "tool_use"),
        reasoning=_joined(blocks, "thinking", "thinking"),
        refusal=(text or "") if refused else None,
        usage=usage(found.get("usage")),
        model=found["model"] if isinstance(found.get("model"), str) else None,
        request_id=found["id"] if isinstance(found.get("id"), str) else None,
    )


def usage(found: Any) -> Usage:
    """Tokens read, whether from a cache or not, and written."""
    if not isinstance(found, dict):
        return Usage()
    fresh = count(found.get("input_tokens"))
    cached = count(found.get("cache_read_input_tokens"))
    stored = count(found.get("cache_creation_input_tokens"))
    read = None if fresh is None else fresh + (cached or 0) + (stored or 0)
    return Usage(read, count(found.get("output_tokens")), cached)


def _joined(blocks: list[dict[str, Any]], kind: str, key: str) -> str | None:
    pieces = [block.get(key) for block in blocks if block.get("type") == kind]
    if not all(isinstance(piece, str) for piece in pieces):
        raise bad(f"a block of the answer has no {key}")
    return clean("".join(map(str, pieces))) if pieces else None


def _call(block: dict[str, Any]) -> ToolCall:
    if not isinstance(block.get("name"), str):
        raise bad("a tool call of the answer names no tool")
    words = json.dumps(block.get("input") or {}, ensure_ascii=False)
    return ToolCall(str(block.get("id") or ""), block["name"], words)


class MessageReader(StreamReader):
    """One attempt at a stream of named events."""

    def __init__(self, fail: Fail) -> None:
        self._fail = fail
        self._done = False
        self._finish: FinishReason | None = None
        self._finished = False
        self._usage: dict[str, Any] = {}
        self._calls: dict[Any, dict[str, str]] = {}

    @property
    def done(self) -> bool:
        return self._done

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
        if not self._finished:
            raise ConnectionFailed("the stream ended before the answer was whole")
        calls = (ToolCall(c["id"], c["name"], c["arguments"] or "{}") for c in self._calls.values())
        return [Delta("", self._finish, usage(self._usage), tool_calls=tuple(calls))]

    def whole(self, words: str, headers: Mapping[str, str]) -> list[Delta]:
        full = completion(words, self._fail)
        text = full.text or full.refusal or ""
        return [Delta(text, full.finish_reason, full.usage, full.reasoning or "", full.tool_calls)]

    def _start(self, chunk: dict[str, Any]) -> list[Delta]:
        self._count((chunk.get("message") or {}).get("usage"))
        return []

    def _block(self, chunk: dict[str, Any]) -> list[Delta]:
        block = chunk.get("content_block") or {}
        if block.get("type") == "tool_use":
            self._calls[chunk.get("index")] = {
                "id": str(block.get("id") or ""), "name": str(block.get("name") or ""), "arguments": "",
            }  # fmt: skip
        return [Delta(clean(block["text"]))] if block.get("text") else []

    def _delta(self, chunk: dict[str, Any]) -> list[Delta]:
        delta = chunk.get("delta") or {}
        if delta.get("type") == "input_json_delta" and chunk.get("index") in self._calls:
            self._calls[chunk["index"]]["arguments"] += str(delta.get("partial_json") or "")
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
