"""/v1/responses, over what the chat route reads: items in and out, and events that number themselves."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from memserve.errors import InvalidInput
from memserve.protocol import Capabilities, Completion, Delta, Sample, Usage
from memserve.serve.endpoint import answered, asked
from memserve.serve.endpoint.answered import Piece, event
from memserve.serve.endpoint.asked import Asked, mapping

_TEXTS = ("input_text", "output_text", "text", "refusal")


def read(body: Mapping[str, Any], known: Capabilities) -> Asked:
    """The body as the chat route would have it. Nothing is kept here, so earlier answers must come along."""
    fields = {name: value for name, value in body.items() if value is not None}
    above = fields.pop("instructions", None)
    talk = [{"role": "system", "content": above}] if above else []
    given = fields.pop("input", None)
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise InvalidInput("input is a text or a list of items")
    for position, item in enumerate(items):
        _item(talk, dict(mapping(item, f"input[{position}]")))
    if "max_output_tokens" in fields:
        fields["max_tokens"] = fields.pop("max_output_tokens")
    if form := mapping(fields.pop("text", {}), "text").get("format"):
        fields["response_format"] = form
    if effort := mapping(fields.pop("reasoning", {}), "reasoning").get("effort"):
        fields["reasoning_effort"] = effort
    if tools := fields.pop("tools", None):
        fields["tools"] = [_tool(mapping(tool, "a tool")) for tool in tools]
    choice = fields.get("tool_choice")
    if isinstance(choice, dict):
        fields["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    return asked.chat({**fields, "messages": talk}, known)


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise InvalidInput(f"a tool is of the type function, not {tool.get('type')!r}")
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type" and v is not None}}


def _item(talk: list[dict[str, Any]], item: dict[str, Any]) -> None:
    kind = item.get("type", "message")
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        if not (talk and talk[-1].get("tool_calls")):
            talk.append({"role": "assistant", "content": None, "tool_calls": []})
        talk[-1]["tool_calls"].append(call)
    elif kind == "function_call_output":
        talk.append(
            {"role": "tool", "tool_call_id": item.get("call_id"), "content": _parts(item.get("output"))}
        )
    elif kind == "message":
        talk.append({"role": item.get("role"), "content": _parts(item.get("content"))})
    elif kind != "reasoning":  # an earlier thought, which models do not read again
        raise InvalidInput(f"an item is a message, a function_call, or its output, not {kind!r}")


def _parts(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    parts = [_part(mapping(part, "a part")) for part in content]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return "".join(map(str, texts)) if len(texts) == len(parts) else parts


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text", part.get("refusal"))}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
    raise InvalidInput(f"a part is an input_text or an input_image, not {kind!r}")


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
        list(self.events(Piece(0, delta)))
        list(self._close())
        self._ended(answered.total(answers))
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
        if delta.tool_calls:
            yield from self._close()
        for call in answered.tool_calls(delta.tool_calls, self._asked):
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
            yield from self._told(f"{said['type']}.done", **self._place(), text=said["text"], logprobs=[])
            yield from self._told("content_part.done", **self._place(), part=said)
        yield from self._told("output_item.done", output_index=len(output) - 1, item=item)

    def _ended(self, spent: Usage) -> None:
        cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(self._finish or "")
        usage = answered.usage(spent)
        self._body["status"] = "incomplete" if cut else "completed"
        self._body["incomplete_details"] = {"reason": cut} if cut else None
        self._body["usage"] = usage and {
            "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
            "input_tokens_details": {"cached_tokens": spent.cached_tokens or 0},
            "output_tokens_details": {"reasoning_tokens": spent.reasoning_tokens or 0},
        }  # fmt: skip
