"""Writes a request in the shape of Converse, as a model's row has it, and reads its answers."""

import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from memserve import files
from memserve.errors import ConnectionFailed, MemserveError, Unsupported
from memserve.http import Event, StreamReader, failure
from memserve.http.body import bad, parse
from memserve.http.chat import fill, message_parts
from memserve.http.chat.answer import clean, count, finish
from memserve.http.chat.message_parts import Image, Turn
from memserve.protocol import Capabilities, Completion, Delta, FinishReason, Prompt, Request, ToolCall, Usage

EXTRA = "bedrock_"


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


@cache
def _table(name: str) -> dict[str, Any]:
    return dict(files.table(__file__, name))


def model(name: str | None) -> Model:
    """The row of a model."""
    rows = _table("models.json")["models"]
    row = next(row for row in rows if re.search(row["pattern"], name or "", re.IGNORECASE))
    return Model(name, **{key: value for key, value in row.items() if key not in ("pattern", "source")})


@cache
def extras() -> dict[str, str]:
    """The field of each extra setting."""
    return {EXTRA + row["name"]: row["field"] for row in _table("models.json")["extras"]}


@cache
def finish_reasons() -> dict[str, FinishReason | None]:
    """What each stopReason means."""
    return {row["said"]: row["means"] for row in _table("finish.json")["reasons"]}


def capabilities(known: Model) -> Capabilities:
    """What a model can do."""
    return Capabilities(
        backend="bedrock", model=known.name, chat=True, max_tokens=True, stop=True, usage=True,
        temperature=known.temperature, max_temperature=1.0, top_p=known.top_p,
        top_k=known.top_k is not None, schema=known.schema, tools=known.tools, images=known.images,
        stream=True, count_tokens=known.counts,
        cache_marks=4096 if _CACHING.search(known.name or "") else 0, extras=frozenset(extras()), cancel=True,
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
    for name, spelled in (("max_tokens", "maxTokens"), ("temperature", "temperature"), ("top_p", "topP")):
        if getattr(request, name) is not None:
            config[spelled] = getattr(request, name)
    if request.stop:
        config["stopSequences"] = list(request.stop)
    found: dict[str, Any] = {"inferenceConfig": config} if config else {}
    found.update({extras()[name]: value for name, value in request.extra.items()})
    if request.top_k is not None:
        own = fill(model.top_k, request.top_k)
        found["additionalModelRequestFields"] = {**found.get("additionalModelRequestFields", {}), **own}
    if request.tools and request.tool_choice != "none":
        found["toolConfig"] = _tools(request)
    if request.schema is not None:
        schema = {"schema": json.dumps(request.schema), "name": "answer"}
        form = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        found["outputConfig"] = {"textFormat": form}
    return found


def _tools(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {"tools": [_tool(described) for described in request.tools]}
    if request.tool_choice is not None:
        kind, name = message_parts.choice(request.tool_choice)
        if kind not in _CHOICES:
            raise Unsupported("bedrock", f"tool_choice={kind!r}", "leave the tools out instead")
        found["toolChoice"] = {_CHOICES[kind]: {"name": name} if name else {}}
    return found


def _tool(described: Mapping[str, Any]) -> dict[str, Any]:
    tool = message_parts.tool(described)
    about = {"description": tool.description} if tool.description else {}
    return {"toolSpec": {"name": tool.name, **about, "inputSchema": {"json": tool.parameters}}}


def _turn(turn: Turn) -> tuple[str, list[dict[str, Any]]]:
    if turn.role == "tool":
        result = {"toolUseId": turn.answers or "", "content": [{"text": turn.text}]}
        return "user", [{"toolResult": result}]
    blocks = _pieces(turn)
    for call in turn.calls:
        known = {"toolUseId": call.id, "name": call.name, "input": message_parts.arguments(call)}
        blocks.append({"toolUse": known})
    return turn.role, blocks


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
    return Usage(read, made, cached, written_tokens=stored)


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
