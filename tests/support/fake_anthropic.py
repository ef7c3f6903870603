"""Anthropic's Messages API on loopback, with its refusals."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from fake_provider import CONTEXT, FakeProvider, Seen, Speech, count, instance, refusal, sse

_REASONS = {"stop": "end_turn", "length": "max_tokens", "stop_sequence": "stop_sequence"}
_KNOWN = {
    "model", "messages", "system", "max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "stream",
    "tools", "tool_choice", "output_config", "metadata", "thinking", "service_tier", "cache_control",
}  # fmt: skip


@dataclass
class FakeAnthropic(FakeProvider):
    """Takes one key; a new Claude refuses sampling settings, a middle one refuses two at once."""

    key: str = "sk-ant-very-secret"

    async def answer(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        if self.key not in (seen.headers.get("x-api-key"), seen.headers.get("authorization", "")[7:]):
            return _error(401, "authentication_error", "invalid x-api-key")
        if "anthropic-version" not in seen.headers:
            return _error(400, "invalid_request_error", "anthropic-version: header is required")
        path = seen.path.partition("?")[0]
        if path not in ("/v1/messages", "/v1/messages/count_tokens"):
            return _error(404, "not_found_error", "Not found")
        return await self._messages(seen.json, request, path.endswith("count_tokens"))

    async def _messages(self, body: dict[str, Any], request: web.Request, counts: bool) -> web.StreamResponse:
        prompt = json.dumps([body.get("system"), body["messages"], *body.get("tools", ())])
        if counts:
            return web.json_response({"input_tokens": count(prompt) + 3})
        wrong = _wrong(body)
        if wrong:
            return _error(400, "invalid_request_error", wrong)
        heat = 0.0 if body.get("top_k") == 1 else body.get("temperature", 0.0)
        said = self.say(prompt, body["max_tokens"], body.get("stop_sequences"), temperature=heat)
        if said.prompt_tokens + body["max_tokens"] > CONTEXT:
            text = f"prompt is too long: {said.prompt_tokens} tokens > {CONTEXT} maximum"
            return _error(400, "invalid_request_error", text)
        blocks = _blocks(body, said)
        reason = "tool_use" if blocks[0]["type"] == "tool_use" else _REASONS[said.finish]
        if body.get("stream"):
            return await sse(request, _events(body, said, blocks, reason))
        return web.json_response(_message(body, blocks, reason, _usage(said)))


def _wrong(body: dict[str, Any]) -> str | None:
    model = body["model"]
    extra = set(body) - _KNOWN
    if extra:
        return f"{sorted(extra)[0]}: Extra inputs are not permitted"
    sampling = [name for name in ("temperature", "top_p", "top_k") if name in body]
    if sampling and re.search(r"opus-4-[789]|(?:opus|sonnet|fable)-5", model):
        return f"`{sampling[0]}` is deprecated for this model."
    if {"temperature", "top_p"} <= set(body) and re.search(r"-4-[1-6](?!\d)", model):
        return "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    roles = [message["role"] for message in body["messages"]]
    return None if set(roles) <= {"user", "assistant"} else "messages: Unexpected role"


def _blocks(body: dict[str, Any], said: Speech) -> list[dict[str, Any]]:
    choice = body.get("tool_choice", {}).get("type")
    if choice in ("any", "tool"):
        name = body["tool_choice"].get("name", body["tools"][0]["name"])
        tool = next(one for one in body["tools"] if one["name"] == name)
        made = instance(tool["input_schema"])
        return [{"type": "tool_use", "id": "toolu_1", "name": tool["name"], "input": made}]
    form = body.get("output_config", {}).get("format")
    text = json.dumps(instance(form["schema"])) if form else said.text
    return [{"type": "text", "text": text}]


def _usage(said: Speech) -> dict[str, int]:
    return {
        "input_tokens": said.prompt_tokens - 2, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 2, "output_tokens": said.tokens,
    }  # fmt: skip


def _message(body: dict[str, Any], blocks: list[Any], reason: str | None, usage: Any) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": blocks,
        "stop_reason": reason, "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def _events(body: dict[str, Any], said: Speech, blocks: list[Any], reason: str) -> list[bytes]:
    usage = {**_usage(said), "output_tokens": 1}
    block = blocks[0]
    empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
    return [
        event("message_start", message=_message(body, [], None, usage)),
        event("content_block_start", index=0, content_block=empty),
        event("ping"),
        *[event("content_block_delta", index=0, delta=delta) for delta in _deltas(block, said)],
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": reason, "stop_sequence": None},
              usage={"output_tokens": said.tokens}),
        event("message_stop"),
    ]  # fmt: skip


def _deltas(block: dict[str, Any], said: Speech) -> list[dict[str, Any]]:
    if block["type"] == "tool_use":
        words = json.dumps(block["input"])
        return [{"type": "input_json_delta", "partial_json": part} for part in (words[:3], words[3:])]
    pieces = said.pieces if block["text"] == said.text else [block["text"]]
    return [{"type": "text_delta", "text": piece} for piece in pieces]


def event(kind: str, **fields: Any) -> bytes:
    """One named event of a stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _error(status: int, kind: str, message: str) -> web.Response:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return refusal(status, body, request_id="req_1")
