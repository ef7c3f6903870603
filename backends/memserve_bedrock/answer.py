"""Reads the answers of Converse, whole or streamed."""

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memserve.errors import ConnectionFailed, MemserveError
from memserve.http import AnswerReader, Event, failure
from memserve.http.body import bad, parse
from memserve.http.chat import message_parts
from memserve.http.chat.answer import clean, finish, spent
from memserve.protocol import Completion, Delta, ToolCall, Usage
from memserve_bedrock.ask import finish_reasons

_PRELUDE = struct.Struct(">III")
_SUM = struct.Struct(">I")
_LEAST = _PRELUDE.size + _SUM.size
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type; bytes (6) and strings (7) say their own length."""
_STRING = 7


@dataclass(frozen=True)
class Frame:
    """One message: its headers that are strings, and its payload."""

    headers: Mapping[str, str]
    payload: bytes


class Frames:
    """Feed it bytes as they arrive; it yields the frames that they complete."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = b""

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that this chunk completes."""
        self._buffer += chunk
        while len(self._buffer) >= _PRELUDE.size:
            size = self._size()
            if len(self._buffer) < size:
                return
            whole, self._buffer = self._buffer[:size], self._buffer[size:]
            yield _frame(whole)

    def finish(self) -> None:
        """Prove that the stream did not end inside a frame."""
        if self._buffer:
            raise ConnectionFailed("the stream ended inside a frame")

    def _size(self) -> int:
        size, headers, checksum = _PRELUDE.unpack_from(self._buffer)
        if zlib.crc32(self._buffer[:8]) != checksum:
            raise bad("a frame of the stream is corrupt: its prelude's checksum is wrong")
        if not _LEAST + headers <= size:
            raise bad("a frame of the stream is shorter than its headers")
        if size > self._limit:
            raise bad(f"a frame of the stream exceeds {self._limit} bytes", retries=None)
        return int(size)


def _frame(whole: bytes) -> Frame:
    if zlib.crc32(whole[: -_SUM.size]) != _SUM.unpack(whole[-_SUM.size :])[0]:
        raise bad("a frame of the stream is corrupt: its checksum is wrong")
    length = _PRELUDE.unpack_from(whole)[1]
    start = _PRELUDE.size
    try:
        headers = dict(_headers(whole[start : start + length]))
    except (struct.error, IndexError, KeyError, UnicodeDecodeError):
        raise bad("a frame's headers cannot be read") from None
    return Frame(headers, whole[start + length : -_SUM.size])


def _headers(data: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        name, kind = data[at + 1 : end].decode(), data[end]
        at = end + 1
        if kind in _FIXED:
            at += _FIXED[kind]
            continue
        if kind not in (6, _STRING):
            raise KeyError(kind)
        size = struct.unpack_from(">H", data, at)[0]
        value = data[at + 2 : at + 2 + size]
        at += 2 + size
        if kind == _STRING:
            yield name, value.decode()


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
        tool_calls=tuple(message_parts.behind_thoughts(blocks, _is_signed, _call)),
        reasoning=_joined([_thought(block) for block in blocks if "reasoningContent" in block]) or None,
        usage=usage(found.get("usage")),
        model=model,
        request_id=headers.get("x-amzn-requestid"),
    )


def usage(found: Any) -> Usage:
    """Tokens read, whether from a cache or not, and written."""
    return spent(found, ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"))


def _joined(pieces: list[Any]) -> str | None:
    if not all(isinstance(piece, str) for piece in pieces):
        raise bad("a block's text is not a string")
    return clean("".join(pieces)) if pieces else None


def _thought(block: dict[str, Any]) -> Any:
    content = block["reasoningContent"]
    text = content.get("reasoningText") if isinstance(content, dict) else None
    return text.get("text", "") if isinstance(text, dict) else ""


def _is_signed(block: Mapping[str, Any]) -> bool:
    said = block.get("reasoningContent") or {}
    return "redactedContent" in said or "signature" in (said.get("reasoningText") or {})


def _call(block: Mapping[str, Any]) -> ToolCall | None:
    if "toolUse" not in block:
        return None
    use = block["toolUse"]
    if not isinstance(use, dict) or not isinstance(use.get("name"), str):
        raise bad("a tool call of the answer names no tool")
    words = json.dumps(use.get("input") or {}, ensure_ascii=False)
    return ToolCall(str(use.get("toolUseId") or ""), use["name"], words)


def _whole(told: Mapping[str, str]) -> dict[str, Any]:
    """A streamed thought as a whole answer has it."""
    return {"reasoningContent": told if "redactedContent" in told else {"reasoningText": told}}


class ConverseReader(AnswerReader):
    """One attempt at a stream: its frames come as events."""

    def __init__(self, fail: Fail) -> None:
        super().__init__(fail)
        self._usage = Usage()
        self._calls: dict[Any, dict[str, Any]] = {}
        self._thoughts: dict[Any, dict[str, str]] = {}
        """Since the last call, by their places."""

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
        return self._last(self._usage, (ToolCall(**call) for call in self._calls.values()))

    def whole(self, words: str, headers: Mapping[str, str]) -> list[Delta]:
        full = completion(words, headers, None, self._fail)
        return self._only(full)

    def _start(self, chunk: dict[str, Any]) -> list[Delta]:
        use = (chunk.get("start") or {}).get("toolUse")
        if isinstance(use, dict):
            thoughts = map(_whole, self._thoughts.values())
            self._calls[chunk.get("contentBlockIndex")] = {
                "id": str(use.get("toolUseId") or ""), "name": str(use.get("name") or ""), "arguments": "",
                "signature": message_parts.signature(list(filter(_is_signed, thoughts))),
            }  # fmt: skip
            self._thoughts = {}
        return []

    def _delta(self, chunk: dict[str, Any]) -> list[Delta]:
        delta = chunk.get("delta") or {}
        use = delta.get("toolUse")
        call = self._calls.get(chunk.get("contentBlockIndex"))
        if isinstance(use, dict) and call is not None:
            call["arguments"] += str(use.get("input") or "")
        said = delta.get("reasoningContent") or {}
        if said:
            known = self._thoughts.setdefault(chunk.get("contentBlockIndex"), {})
            known.update({name: known.get(name, "") + str(value) for name, value in said.items()})
        thought = said.get("text")
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
