"""Reads the answers of Converse, whole or streamed."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from memserve.errors import ConnectionFailed, MemserveError
from memserve.http import Event, StreamReader, failure
from memserve.http.body import bad, parse
from memserve.http.chat.field import clean, count, finish
from memserve.protocol import Completion, Delta, FinishReason, ToolCall, Usage
from memserve_bedrock.model import finish_reasons

Fail = Callable[[failure.Words], MemserveError]

EXCEPTION = "exception:"
"""Before the name of an event that is a failure."""


def completion(words: str, headers: Mapping[str, str], model: str | None, fail: Fail) -> Completion:
    """The Completion that a body holds, or an error."""
    found = parse(words)
    if not isinstance(found, dict):
        raise bad("the answer is not an object")
    output = found.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    if not isinstance(message, dict):
        failed = failure.read(found)
        raise fail(failed) if failed is not None else bad("the answer has no message")
    blocks = message.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise bad("the answer's content is not a list of objects")
    return Completion(
        text=_joined([block["text"] for block in blocks if "text" in block]),
        finish_reason=finish(found.get("stopReason"), finish_reasons()),
        tool_calls=tuple(_call(block["toolUse"]) for block in blocks if "toolUse" in block),
        reasoning=_joined([_thought(block) for block in blocks if "reasoningContent" in block]),
        usage=usage(found.get("usage")),
        model=model,
        request_id=headers.get("x-amzn-requestid"),
    )


def usage(found: Any) -> Usage:
    """Tokens read, whether from a cache or not, and written."""
    if not isinstance(found, dict):
        return Usage()
    fresh, made = count(found.get("inputTokens")), count(found.get("outputTokens"))
    cached, stored = count(found.get("cacheReadInputTokens")), count(found.get("cacheWriteInputTokens"))
    read = None if fresh is None else fresh + (cached or 0) + (stored or 0)
    return Usage(read, made, cached)


def _joined(pieces: list[Any]) -> str | None:
    if not all(isinstance(piece, str) for piece in pieces):
        raise bad("a block's text is not a string")
    return clean("".join(pieces)) if pieces else None


def _thought(block: dict[str, Any]) -> Any:
    content = block["reasoningContent"]
    text = content.get("reasoningText") if isinstance(content, dict) else None
    return text.get("text", "") if isinstance(text, dict) else ""


def _call(use: Any) -> ToolCall:
    if not isinstance(use, dict) or not isinstance(use.get("name"), str):
        raise bad("a tool call of the answer names no tool")
    words = json.dumps(use.get("input") or {}, ensure_ascii=False)
    return ToolCall(str(use.get("toolUseId") or ""), use["name"], words)


class ConverseReader(StreamReader):
    """One attempt at a stream: its frames come as events."""

    def __init__(self, fail: Fail) -> None:
        self._fail = fail
        self._done = False
        self._finish: FinishReason | None = None
        self._finished = False
        self._usage = Usage()
        self._calls: dict[Any, dict[str, str]] = {}

    @property
    def done(self) -> bool:
        return self._done

    def take(self, event: Event) -> list[Delta]:
        chunk = parse(event.data) if event.data.strip() else {}
        if not isinstance(chunk, dict):
            raise bad("an event of the stream is not an object")
        if event.name.startswith(EXCEPTION):
            kind = event.name.removeprefix(EXCEPTION)
            raise self._fail(failure.Words(str(chunk.get("message") or kind), (kind,), chunk))
        known = {
            "contentBlockStart": self._start, "contentBlockDelta": self._delta, "messageStop": self._stop,
            "metadata": self._metadata,
        }  # fmt: skip
        return known[event.name](chunk) if event.name in known else []

    def end(self) -> list[Delta]:
        if not self._finished:
            raise ConnectionFailed("the stream ended before the answer was whole")
        calls = (ToolCall(c["id"], c["name"], c["arguments"] or "{}") for c in self._calls.values())
        return [Delta("", self._finish, self._usage, tool_calls=tuple(calls))]

    def whole(self, words: str, headers: Mapping[str, str]) -> list[Delta]:
        full = completion(words, headers, None, self._fail)
        return [Delta(full.text or "", full.finish_reason, full.usage, full.reasoning or "", full.tool_calls)]

    def _start(self, chunk: dict[str, Any]) -> list[Delta]:
        use = (chunk.get("start") or {}).get("toolUse")
        if isinstance(use, dict):
            self._calls[chunk.get("contentBlockIndex")] = {
                "id": str(use.get("toolUseId") or ""), "name": str(use.get("name") or ""), "arguments": "",
            }  # fmt: skip
        return []

    def _delta(self, chunk: dict[str, Any]) -> list[Delta]:
        delta = chunk.get("delta") or {}
        use = delta.get("toolUse")
        call = self._calls.get(chunk.get("contentBlockIndex"))
        if isinstance(use, dict) and call is not None:
            call["arguments"] += str(use.get("input") or "")
        thought = (delta.get("reasoningContent") or {}).get("text")
        if thought:
            return [Delta(reasoning=clean(thought))]
        return [Delta(clean(delta["text"]))] if delta.get("text") else []

    def _stop(self, chunk: dict[str, Any]) -> list[Delta]:
        self._finish = finish(chunk.get("stopReason"), finish_reasons())
        self._finished = True
        return []

    def _metadata(self, chunk: dict[str, Any]) -> list[Delta]:
        self._usage = usage(chunk.get("usage"))
        self._done = self._finished
        return []
