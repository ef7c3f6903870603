"""The Responses API: the newer form of a chat, in which OpenAI's models tell what they thought."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from memserve.http import AnswerReader, Call, Event, StreamReader, failure
from memserve.http.body import bad, parse
from memserve.http.chat import answer, encode, failure_in, message_parts
from memserve.http.chat.message_parts import Image, Turn
from memserve.http.engine import ended
from memserve.protocol import Completion, Delta, FinishReason, Prompt, Request, ToolCall, Usage
from memserve_openai import dialect
from memserve_openai.dialect import EXTRA
from memserve_openai.generation import ChatEngine, log

_SIGNED = ("encrypted_content",)
_LOGPROBS, _THOUGHTS = "message.output_text.logprobs", "reasoning.encrypted_content"
_CUT: Mapping[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_BETWEEN = "\n\n"
"""Between the paragraphs of a summary."""


class ResponsesEngine(ChatEngine):
    """Asks {base_url}/responses. The server keeps nothing: earlier turns come along, signed thoughts too."""

    route = "responses"

    def write(self, request: Request, *, stream: bool) -> Call:
        extra = {name.removeprefix(EXTRA): value for name, value in request.extra.items()}
        payload = self._payload(request, {"input": list(_items(request.prompt))})
        if request.tools:
            payload["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice is not None:
            kind, name = message_parts.choice(request.tool_choice)
            payload["tool_choice"] = {"type": kind, "name": name} if name else kind
        include = [_THOUGHTS] if "on" in self._dialect.thinking else []
        if request.logprobs is not None:
            include, payload["top_logprobs"] = [*include, _LOGPROBS], request.logprobs
        if "text" in extra and "text" in payload:
            extra["text"] = {**extra["text"], **payload["text"]}
        payload.update(dialect.thinking_fields(self._dialect, self._model, request, extra))
        if include := [*include, *payload.get("include", ())]:
            payload["include"] = include
        if stream:
            payload["stream"] = True
        return self._client.call(self._chat_url, encode(payload))

    def reader(self, request: Request) -> StreamReader:
        plain = ResponseReader(lambda words: self._client.failed(words, 200, {}))
        return dialect.ThoughtReader(plain, self._model, request.thinking)

    def _completion(self, found: Any, request: Request) -> Completion:
        told = completion(found)
        if request.logprobs is not None and told.logprobs is None:
            log.warning("log-probabilities were asked for and the server sent none")
        return told


def _items(prompt: Prompt) -> Iterator[dict[str, Any]]:
    """The items of a talk: messages, calls behind the thoughts that led to them, and what calls gave."""
    talk = message_parts.read(prompt, "openai")
    for turn in (*talk.above, *talk.turns):
        if turn.role == "tool":
            yield {"type": "function_call_output", "call_id": turn.answers or "", "output": _content(turn)}
        else:
            silent = turn.calls and not any(turn.pieces)
            said = () if silent else ({"role": turn.role, "content": _content(turn)},)
            yield from message_parts.signed(turn, said, _SIGNED, _call)


def _content(turn: Turn) -> Any:
    if all(isinstance(piece, str) for piece in turn.pieces):
        return turn.text
    return [_piece(piece) for piece in turn.pieces]


def _piece(piece: str | Image) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "input_text", "text": piece}
    url = piece.url or f"data:{piece.media_type};base64,{piece.data}"
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}


def _tool(described: Mapping[str, Any]) -> dict[str, Any]:
    if "function" not in described:
        return dict(described)
    tool = message_parts.tool(described)
    strict = bool(described["function"].get("strict"))  # here true is the default, of chats it never was
    about = {"description": tool.description} if tool.description else {}
    return {"type": "function", "name": tool.name, **about, "parameters": tool.parameters, "strict": strict}


def completion(found: Any) -> Completion:
    """The Completion that a response holds, or BadAnswer."""
    if not isinstance(found, dict) or not isinstance(found.get("output"), list):
        raise bad("the answer has no list of output")
    items = [item for item in found["output"] if isinstance(item, dict)]
    said = [part for item in _of(items, "message") for part in item.get("content") or ()]
    parts = [part for part in said if isinstance(part, dict)]
    text, refusal = _joined(parts, "output_text", "text"), _joined(parts, "refusal", "refusal")
    calls = tuple(message_parts.behind_thoughts(items, _is_signed, _call_of))
    finish = "content_filter" if refusal is not None else _finish(found)
    tokens = [one for part in parts for one in part.get("logprobs") or ()]
    return Completion(
        text=None if refusal is not None else text, finish_reason=ended(finish, calls), tool_calls=calls,
        reasoning=_thought(items), refusal=refusal, usage=usage(found.get("usage")),
        logprobs=answer.logprobs({"content": tokens}) if tokens else None,
        model=found["model"] if isinstance(found.get("model"), str) else None,
        request_id=found["id"] if isinstance(found.get("id"), str) else None,
    )  # fmt: skip


def _of(items: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in items if item.get("type") == kind]


def _joined(parts: list[dict[str, Any]], kind: str, key: str) -> str | None:
    found = [part.get(key) for part in _of(parts, kind)]
    return "".join(answer.text(words) or "" for words in found) if found else None


def _thought(items: list[dict[str, Any]]) -> str | None:
    """What the model thought: itself where the server tells it, or a summary."""
    found = []
    for item in _of(items, "reasoning"):
        own = _joined(item.get("content") or [], "reasoning_text", "text")
        short = (answer.text(part.get("text")) or "" for part in item.get("summary") or ())
        found.append(own or _BETWEEN.join(short))
    return _BETWEEN.join(filter(None, found)) or None


def _finish(found: Mapping[str, Any]) -> FinishReason | None:
    if found.get("status") == "incomplete":
        return _CUT.get(str((found.get("incomplete_details") or {}).get("reason")))
    return "stop" if found.get("status") == "completed" else None


def usage(found: Any) -> Usage:
    """Token counts, in the words of a chat."""
    if not isinstance(found, dict):
        return Usage()
    prompt, made = found.get("input_tokens_details"), found.get("output_tokens_details")
    both = {"prompt_tokens": found.get("input_tokens"), "completion_tokens": found.get("output_tokens")}
    return answer.usage({**both, "prompt_tokens_details": prompt, "completion_tokens_details": made})


def _is_signed(item: Mapping[str, Any]) -> bool:
    return item.get("type") == "reasoning" and bool(item.get("encrypted_content"))


def _call_of(item: Mapping[str, Any]) -> ToolCall | None:
    if item.get("type") != "function_call":
        return None
    if not isinstance(item.get("name"), str):
        raise bad("a tool call of the answer names no tool")
    own = str(item.get("call_id") or item.get("id") or "")
    return ToolCall(own, item["name"], answer.arguments(item) or "{}")


_TEXT = ("response.output_text.delta", "response.refusal.delta")
_REASONING = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
_LAST = ("response.completed", "response.incomplete", "response.failed")


class ResponseReader(AnswerReader):
    """One attempt at a stream of named events, the last of which holds the whole answer."""

    def __init__(self, fail: Any) -> None:
        super().__init__(fail)
        self._items: list[dict[str, Any]] = []
        self._full: Completion | None = None
        self._thought: tuple[Any, Any] | None = None
        """Which paragraph of which thought was told last."""

    def take(self, event: Event) -> list[Delta]:
        chunk = parse(event.data)
        if not isinstance(chunk, dict):
            raise bad("an event of the stream is not an object")
        kind = chunk.get("type") or event.name
        if kind == "error":
            raise self._fail(failure.read(chunk) or failure.Words("the stream failed"))
        if kind in _TEXT:
            return [Delta(answer.text(chunk.get("delta")) or "")]
        if kind in _REASONING:
            return [Delta(reasoning=self._paragraph(chunk) + (answer.text(chunk.get("delta")) or ""))]
        if kind == "response.output_item.done" and isinstance(chunk.get("item"), dict):
            self._items.append(chunk["item"])
        elif kind in _LAST:
            self._end_of(chunk.get("response"))
        return []

    def end(self) -> list[Delta]:
        full = self._full
        self._finish = full.finish_reason if full else None
        return self._last(full.usage if full else None, full.tool_calls if full else ())

    def whole(self, words: str, headers: Mapping[str, str]) -> list[Delta]:
        found = parse(words)
        if failed := failure_in(found):
            raise self._fail(failed)
        full = completion(found)
        return self._only(replace(full, text=full.refusal or full.text))

    def _paragraph(self, chunk: Mapping[str, Any]) -> str:
        here = chunk.get("output_index"), chunk.get("summary_index")
        before, self._thought = self._thought, here
        return _BETWEEN if before not in (None, here) else ""

    def _end_of(self, found: Any) -> None:
        if failed := failure_in(found):
            raise self._fail(failed)
        if isinstance(found, dict) and not found.get("output"):  # some servers tell it in the items alone
            found = {**found, "output": self._items}
        self._full = completion(found)
        self._done = self._finished = True
