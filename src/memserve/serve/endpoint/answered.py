"""What goes back: answers in the shapes of the routes, whole and in events, and failures."""

import json
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from memserve import errors, tools
from memserve.protocol import Completion, Delta, Sample, TokenLogprob, ToolCall, Usage
from memserve.serve.endpoint.asked import SPELLED, Asked

_LOWEST = -9999.0
"""Of a token whose number the engine did not tell."""


@dataclass(frozen=True)
class Piece:
    """A piece of the answer to one of several choices; `whole`: the answer, where it comes at once."""

    index: int
    delta: Delta
    whole: Completion | Sample | None = None


def event(value: Any, name: str = "") -> bytes:
    """A server-sent event."""
    words = value if isinstance(value, str) else json.dumps(value)
    return (f"event: {name}\n" * bool(name) + f"data: {words}\n\n").encode()


class Chat:
    """One answer of /v1/chat/completions on its way."""

    kind, chunk, mark = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def __init__(self, model: str, asked: Asked) -> None:
        self._head = {"id": f"{self.mark}-{uuid4().hex}", "created": int(time.time()), "model": model}
        self._asked = asked
        self._begun: set[int] = set()

    def whole(self, answers: Sequence[Completion]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        said = [sample for answer in answers for sample in answer.samples or (answer,)]
        choices = [self._choice(index, sample) for index, sample in enumerate(said)]
        told = usage(total(answers))
        return {**self._head, "object": self.kind, "choices": choices, "usage": told}

    def events(self, piece: Piece) -> Iterator[bytes]:
        """The events of one piece."""
        delta, index = piece.delta, piece.index
        if index not in self._begun:
            self._begun.add(index)
            yield from self._event(index, self._first())
        for part in self._parts(piece):
            yield from self._event(index, part, piece.whole)
            piece = Piece(index, delta)
        if delta.finish_reason:
            yield from self._event(index, self._empty(), finish=delta.finish_reason)

    def end(self, spent: Usage | None) -> Iterator[bytes]:
        """The last events."""
        if self._asked.usage:
            told = None if spent is None else usage(spent)
            yield event({**self._head, "object": self.chunk, "choices": [], "usage": told})
        yield event("[DONE]")

    def failed(self, body: dict[str, Any]) -> Iterator[bytes]:
        """A failure after the first event: the stream ends without the mark of a whole one."""
        yield event(body)

    def _event(self, index: int, part: dict[str, Any] | None, whole: Any = None, *,
               finish: str | None = None) -> Iterator[bytes]:  # fmt: skip
        if part is not None:
            choice = {"index": index, **part, "finish_reason": finish, **self._details(whole)}
            yield event({**self._head, "object": self.chunk, "choices": [choice]})

    def _details(self, said: Any) -> dict[str, Any]:
        logprobs = None if said is None or said.logprobs is None else self._logprobs(said)
        ids = {"token_ids": said.token_ids} if said is not None and self._asked.token_ids else {}
        return {"logprobs": logprobs, **ids}

    def _first(self) -> dict[str, Any] | None:
        return {"delta": {"role": "assistant", "content": ""}}

    def _empty(self) -> dict[str, Any]:
        return {"delta": {}}

    def _parts(self, piece: Piece) -> Iterator[dict[str, Any]]:
        delta = piece.delta
        if delta.reasoning:
            yield {"delta": {"reasoning_content": delta.reasoning}}
        refusal = getattr(piece.whole, "refusal", None)
        if refusal:
            yield {"delta": {"refusal": refusal}}
        if delta.text or (piece.whole is not None and not delta.tool_calls and not refusal):
            yield {"delta": {"content": delta.text}}
        if delta.tool_calls:
            told = tool_calls(delta.tool_calls, self._asked)
            yield {"delta": {"tool_calls": [{"index": i, **call} for i, call in enumerate(told)]}}

    def _choice(self, index: int, said: Completion | Sample) -> dict[str, Any]:
        message = {"role": "assistant", "content": said.text, "refusal": said.refusal}
        if said.reasoning:
            message["reasoning_content"] = said.reasoning
        calls = {"tool_calls": tool_calls(said.tool_calls, self._asked)} if said.tool_calls else {}
        return {
            "index": index, "message": {**message, **calls}, "finish_reason": said.finish_reason,
            **self._details(said),
        }  # fmt: skip

    def _logprobs(self, said: Any) -> dict[str, Any]:
        return {"content": _tokens(said.logprobs)}


class Text(Chat):
    """One answer of /v1/completions on its way."""

    kind = chunk = "text_completion"
    mark = "cmpl"

    def _first(self) -> dict[str, Any] | None:
        return None

    def _empty(self) -> dict[str, Any]:
        return {"text": ""}

    def _parts(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.delta.text or piece.whole is not None:
            yield {"text": piece.delta.text}

    def _choice(self, index: int, said: Completion | Sample) -> dict[str, Any]:
        finish = said.finish_reason
        return {"index": index, "text": said.text or "", "finish_reason": finish, **self._details(said)}

    def _logprobs(self, said: Any) -> dict[str, Any]:
        found = said.logprobs
        values = [_LOWEST if one.logprob is None else one.logprob for one in found]
        tops: list[Any] = [dict(one.top) for one in found]
        tokens = [one.token for one in found]
        if self._asked.echo and found:  # nothing stands before the first one
            values[0] = tops[0] = None
        return {
            "tokens": tokens, "token_logprobs": values, "top_logprobs": tops,
            "text_offset": _offsets(tokens, said.text or ""),
        }  # fmt: skip


def _offsets(tokens: Sequence[str], text: str) -> list[int]:
    """Where in the text each token begins. Some lack their blank; halves of a character have no length."""
    offsets, at = list[int](), 0
    for token in tokens:
        found = text.find(token, at, at + len(token) + 3)
        offsets.append(min(max(found, at), len(text)))
        at = offsets[-1] + (len(token) if found >= 0 or "\ufffd" not in token else 0)
    return offsets


def _tokens(found: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    return [
        {**_token(one.token, one.logprob), "top_logprobs": [_token(*pair) for pair in one.top],
         **({} if one.token_id is None else {"token_id": one.token_id})}
        for one in found
    ]  # fmt: skip


def _token(token: str, logprob: float | None) -> dict[str, Any]:
    number = _LOWEST if logprob is None else logprob
    return {"token": token, "logprob": number, "bytes": list(token.encode("utf-8", "replace"))}


def tool_calls(calls: Sequence[ToolCall], asked: Asked) -> list[dict[str, Any]]:
    """Calls as a message holds them."""
    return [tools.asked(call) for call in (calls[:1] if asked.one_call else calls)]


def usage(spent: Usage) -> dict[str, Any] | None:
    """Tokens as a body tells them; None where they were not counted."""
    if spent.prompt_tokens is None or spent.completion_tokens is None:
        return None
    told: dict[str, Any] = {
        "prompt_tokens": spent.prompt_tokens, "completion_tokens": spent.completion_tokens,
        "total_tokens": spent.prompt_tokens + spent.completion_tokens,
    }  # fmt: skip
    if spent.cached_tokens is not None:
        told["prompt_tokens_details"] = {"cached_tokens": spent.cached_tokens}
    if spent.reasoning_tokens is not None:
        told["completion_tokens_details"] = {"reasoning_tokens": spent.reasoning_tokens}
    return told


def total(answers: Sequence[Completion]) -> Usage:
    """What all answers took together."""
    if len(answers) == 1:
        return answers[0].usage
    names = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
    counts = [[getattr(answer.usage, name) for answer in answers] for name in names]
    return Usage(*(None if None in count else sum(count) for count in counts))


class Responses:
    """One answer of /v1/responses on its way."""

    def __init__(self, model: str, asked: Asked) -> None:
        self._asked = asked
        self._body: dict[str, Any] = {
            "id": f"resp_{uuid4().hex}", "object": "response", "created_at": int(time.time()), "model": model,
            "status": "in_progress", "error": None, "incomplete_details": None, "instructions": None,
            "metadata": {}, "output": [], "parallel_tool_calls": not asked.one_call, "temperature": None,
            "tool_choice": "auto", "tools": [], "top_p": None, "usage": None,
        }  # fmt: skip
        self._number = -1
        self._finish: str | None = None

    def whole(self, answers: Sequence[Completion]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        said: Completion | Sample = answers[0]
        delta = Delta(said.text or "", said.finish_reason, None, said.reasoning or "", said.tool_calls)
        list(self.events(Piece(0, delta, said)))
        list(self._close())
        self._ended(total(answers))
        return self._body

    def events(self, piece: Piece) -> Iterator[bytes]:
        """The events of one piece."""
        if self._number < 0:
            yield from self._told("created", response=self._body)
        delta = piece.delta
        if delta.reasoning:
            yield from self._grow("reasoning", "reasoning_text", delta.reasoning)
        if delta.text:
            yield from self._grow("message", "output_text", delta.text)
            if piece.whole is not None and piece.whole.logprobs is not None:
                self._item["content"][0]["logprobs"] = _tokens(piece.whole.logprobs)
        if delta.tool_calls:
            yield from self._close()
        for call in tool_calls(delta.tool_calls, self._asked):
            function = call["function"]
            yield from self._open("function_call", call_id=call["id"], name=function["name"], arguments="")
            place = {"item_id": self._item["id"], "output_index": len(self._body["output"]) - 1}
            name, words = "function_call_arguments", function["arguments"]
            self._item["arguments"] = words
            yield from self._told(f"{name}.delta", **place, delta=words)
            yield from self._told(f"{name}.done", **place, arguments=words)
            yield from self._close()
        self._finish = delta.finish_reason or self._finish

    def end(self, spent: Usage | None) -> Iterator[bytes]:
        """The last events."""
        yield from self._close()
        self._ended(spent or Usage())
        yield from self._told(self._body["status"], response=self._body)

    def failed(self, body: dict[str, Any]) -> Iterator[bytes]:
        """A failure after the first event."""
        error = {"code": body["error"]["code"] or "server_error", "message": body["error"]["message"]}
        self._body.update(status="failed", error=error)
        yield from self._told("failed", response=self._body)

    @property
    def _item(self) -> dict[str, Any]:
        item: dict[str, Any] = self._body["output"][-1]
        return item

    def _told(self, kind: str, **more: Any) -> Iterator[bytes]:
        self._number += 1
        name = f"response.{kind}"
        yield event({"type": name, "sequence_number": self._number, **more}, name)

    def _open(self, kind: str, **more: Any) -> Iterator[bytes]:
        item = {"id": f"{kind[:2]}_{uuid4().hex}", "type": kind, "status": "in_progress", **more}
        self._body["output"].append(item)
        yield from self._told("output_item.added", output_index=len(self._body["output"]) - 1, item=item)

    def _grow(self, kind: str, part: str, text: str) -> Iterator[bytes]:
        """More text of the open item, or of a new one."""
        output = self._body["output"]
        if not (output and output[-1]["type"] == kind and output[-1]["status"] == "in_progress"):
            yield from self._close()
            more: dict[str, Any] = {"role": "assistant"} if kind == "message" else {"summary": []}
            yield from self._open(kind, **more, content=[])
            said = {"type": part, "text": "", **({"annotations": []} if kind == "message" else {})}
            self._item["content"].append(said)
            yield from self._told("content_part.added", **self._place(), part=said)
        self._item["content"][0]["text"] += text
        yield from self._told(f"{part}.delta", **self._place(), delta=text, logprobs=[])

    def _place(self) -> dict[str, Any]:
        return {
            "item_id": self._item["id"],
            "output_index": len(self._body["output"]) - 1,
            "content_index": 0,
        }

    def _close(self) -> Iterator[bytes]:
        """The end of the open item."""
        output = self._body["output"]
        if not output or output[-1]["status"] != "in_progress":
            return
        item = self._item
        item["status"] = "completed"
        if "content" in item:
            said = item["content"][0]
            yield from self._told(f"{said['type']}.done", **self._place(), text=said["text"],
                                  logprobs=said.get("logprobs", []))  # fmt: skip
            yield from self._told("content_part.done", **self._place(), part=said)
        yield from self._told("output_item.done", output_index=len(output) - 1, item=item)

    def _ended(self, spent: Usage) -> None:
        cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(self._finish or "")
        told = usage(spent)
        self._body["status"] = "incomplete" if cut else "completed"
        self._body["incomplete_details"] = {"reason": cut} if cut else None
        self._body["usage"] = told and {
            "input_tokens": told["prompt_tokens"], "output_tokens": told["completion_tokens"],
            "total_tokens": told["total_tokens"],
            "input_tokens_details": {"cached_tokens": spent.cached_tokens or 0},
            "output_tokens_details": {"reasoning_tokens": spent.reasoning_tokens or 0},
        }  # fmt: skip


_KINDS: tuple[tuple[type[errors.MemserveError], int, str | None], ...] = (
    (errors.ContextOverflow, 400, "context_length_exceeded"), (errors.NotFound, 404, "model_not_found"),
    (errors.QuotaExceeded, 429, "insufficient_quota"), (errors.Throttled, 429, "rate_limit_exceeded"),
    (errors.Overloaded, 503, "overloaded"), (errors.ContentRefused, 400, "content_filter"),
    (errors.BadRequest, 400, None), (errors.Unsupported, 400, "unsupported_parameter"),
    (errors.InvalidInput, 400, "invalid_value"), (errors.TimedOut, 504, "timeout"),
    (errors.Closed, 503, "closed"), (errors.RemoteError, 502, "upstream"), (errors.MemserveError, 500, None),
)  # fmt: skip
"""The first that fits. A provider that refuses our own key (RemoteError) is no fault of the caller's."""


def refusal(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The object that stands in the body."""
    limited = {429: "rate_limit_error"}
    kind = limited.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def failure(error: errors.MemserveError,
            fields: Collection[str] = ()) -> tuple[int, dict[str, str], dict[str, Any]]:  # fmt: skip
    """Status, headers and body of an error; `fields`: the names that the caller's body holds."""
    status, code = next((status, code) for kind, status, code in _KINDS if isinstance(error, kind))
    headers = {}
    retry_at = getattr(error, "retry_at", None)
    if retry_at is not None or status == 503:
        headers["Retry-After"] = str(max(1, round((retry_at or 0) - time.time())))
    if status >= 500 and not error.retryable:
        headers["x-should-retry"] = "false"
    about = "model" if isinstance(error, errors.NotFound) else getattr(error, "setting", None) or str(error)
    named = re.split(r"[^A-Za-z0-9_]", about, maxsplit=1)[0]
    param = next((name for name in (named, *SPELLED.get(named, ())) if name in fields), None)
    body = refusal(status, str(error), code, param)
    if isinstance(error, errors.ContextOverflow):  # in the words and fields that clients look for
        said = f"This model's maximum context length is {error.limit} tokens: {error}"
        body["error"].update(message=said, n_prompt_tokens=error.prompt, n_ctx=error.limit)
    return status, headers, body
