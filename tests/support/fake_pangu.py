"""Huawei Pangu on loopback: V1, V2 and IAM, behind a gateway that checks what it is shown."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from aiohttp import web
from fake_provider import CONTEXT, FakeProvider, Seen, Speech, instance, refusal, sse

PROJECT, DEPLOYMENT = "PID", "DID"
V1 = f"/v1/{PROJECT}/deployments/{DEPLOYMENT}"
INFERS = "/v1/infers/sid"
ACCESS = "AKEXAMPLE"
"""Its signatures are judged by Huawei's own code elsewhere."""
USER = {"name": "ann", "password": "pass-word-9", "domain": {"name": "acme"}}


@dataclass
class FakePangu(FakeProvider):
    """`key` opens both interfaces; tokens are handed out at /v3/auth/tokens and may be revoked."""

    key: str = "app-code-secret"
    done: bool = True
    """End streams with [DONE]; V1 is not known to."""
    token_seconds: float = 86400.0
    forgetful: bool = False
    """Hand tokens out and take none."""
    tokens: list[str] = field(default_factory=list)
    valid: set[str] = field(default_factory=set)

    @property
    def logins(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == "/v3/auth/tokens"]

    @property
    def asked(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.path != "/v3/auth/tokens"]

    async def answer(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        if seen.path == "/v3/auth/tokens":
            return self._login(seen)
        if not self._may(seen):
            return _gateway(401, "APIG.0301", "Incorrect IAM authentication information: token expires")
        if seen.path == INFERS:
            return await self._generate(seen, request)
        if seen.path.startswith((V1, "/api/v2/", f"{INFERS}/v1/")):
            return await self._complete(seen, request)
        return _gateway(404, "APIG.0101", "The API does not exist or has not been published")

    def _login(self, seen: Seen) -> web.Response:
        auth = seen.json["auth"]
        if auth["identity"]["password"]["user"] != USER or auth["scope"] != {
            "project": {"name": "cn-southwest-2"}
        }:
            return refusal(401, {"error": {"code": 401, "message": "The username or password is wrong."}})
        token = f"MIIN-token-{len(self.tokens)}-" + "x" * 40
        self.tokens.append(token)
        self.valid.add(token)
        end = datetime.fromtimestamp(time.time() + self.token_seconds, timezone.utc)
        facts = {"token": {"expires_at": end.strftime("%Y-%m-%dT%H:%M:%S.000000Z"), "methods": ["password"]}}
        return web.json_response(facts, status=201, headers={"X-Subject-Token": token})

    def _may(self, seen: Seen) -> bool:
        if seen.path.startswith("/api/v2/"):
            return seen.headers.get("authorization") == f"Bearer {self.key}"
        shown = seen.headers.get("authorization", "")
        if seen.path.startswith(INFERS) and (
            shown == f"Bearer {self.key}" or shown.startswith(f"SDK-HMAC-SHA256 Access={ACCESS}, ")
        ):
            return True
        return seen.headers.get("x-apig-appcode") == self.key or self._knows(seen.headers.get("x-auth-token"))

    def _knows(self, token: str | None) -> bool:
        return token in self.valid and not self.forgetful

    async def _complete(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        body = seen.json
        second, n = not seen.path.startswith(V1), body.get("n", 1)
        if n > 2 or (body.get("stream") and n > 1):
            return _gateway(
                400, "PANGU.3320", "The parameter [n] can only be 1 or 2 when calling non-streaming."
            )
        heat = body.get("temperature", 0.0)
        if not 0 <= heat <= (2 if second else 1):
            return _gateway(400, "PANGU.0010", "parameter illegal.")
        prompt = body.get("prompt") or json.dumps([body["messages"], *body.get("tools", ())])
        said = [
            self.say(
                prompt,
                body.get("max_tokens", 16),
                body.get("stop"),
                temperature=heat,
                seed=None if n == 1 else i,
            )
            for i in range(n)
        ]
        if said[0].prompt_tokens + body.get("max_tokens", 16) > CONTEXT:
            details = "maximum context length is 4096 tokens"
            return _gateway(400, "PANGU.3342", "Failed to invoke the inference service.", details=details)
        text = "prompt" in body
        if body.get("stream"):
            return await sse(request, self._events(said[0], second, text, _calls(body)))
        choices = [_choice(i, each, text, _calls(body)) for i, each in enumerate(said)]
        return web.json_response({**_head("chat.completion"), "choices": choices, "usage": _usage(said)})

    def _events(self, said: Speech, second: bool, text: bool, calls: list[Any]) -> list[bytes]:
        key = "delta" if second else "message"
        if calls:
            told = {"role": "assistant", "tool_calls": calls}
            return [_event(key, told, "tool_calls", said, said.tokens, text), b"data:[DONE]\n\n"]
        events = [_event(key, {"role": "assistant"}, None, said, 0, text)]
        for position, piece in enumerate(said.pieces, 1):
            events.append(_event(key, {"content": piece}, None, said, position, text))
        events.append(_event(key, {}, _finish(said), said, said.tokens, text))
        return [*events, b"data:[DONE]\n\n"] if self.done else events

    async def _generate(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        body = seen.json
        told = body["parameters"]
        if set(body) != {"inputs", "parameters", "stream"} or not told.get("temperature", 1) > 0:
            return refusal(422, {"error": "Input validation error: temperature", "error_type": "validation"})
        said = self.say(
            body["inputs"], told["max_new_tokens"], None, temperature=told.get("temperature", 0.0),
            seed=told.get("seed"),
        )  # fmt: skip
        if said.prompt_tokens + told["max_new_tokens"] > CONTEXT:
            words = "inputs tokens + max_new_tokens must be <= 4096"
            return refusal(422, {"error": f"Input validation error: {words}", "error_type": "validation"})
        reason = {"stop": "eos_token", "length": "length"}[said.finish]
        facts = {"finish_reason": reason, "generated_tokens": said.tokens, "input_length": said.prompt_tokens}
        if not body["stream"]:
            return web.json_response({"generated_text": said.text, "details": facts})
        events = [{"token": {"id": 1, "text": piece}, "generated_text": None} for piece in said.pieces]
        last = {
            "token": {"id": 2, "text": "</s>", "special": True},
            "generated_text": said.text,
            "details": facts,
        }
        return await sse(request, [b"data:" + json.dumps(one).encode() + b"\n\n" for one in (*events, last)])


def _gateway(status: int, code: str, message: str, **more: str) -> web.Response:
    return refusal(status, {"error_msg": message, "error_code": code, "request_id": "r-1", **more})


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chat-1", "object": kind, "created": 1745725506, "model": "pangu-nlp-n1-32k"}


def _finish(said: Speech) -> str:
    return "length" if said.finish == "length" else "stop"


def _calls(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The call that a tool_choice asks for."""
    choice = body.get("tool_choice")
    if choice is None or choice in ("auto", "none"):
        return []
    tools = [tool["function"] for tool in body["tools"]]
    name = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["name"]
    schema = next(tool["parameters"] for tool in tools if tool["name"] == name)
    made = {"name": name, "arguments": json.dumps(instance(schema))}
    return [{"index": 0, "id": "call_1", "type": "function", "function": made}]


def _choice(index: int, said: Speech, text: bool, calls: list[Any]) -> dict[str, Any]:
    if calls:
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
    message = {"role": "assistant", "content": said.text, "tool_calls": []}
    body = {"text": said.text} if text else {"message": message}
    return {"index": index, **body, "logprobs": None, "finish_reason": _finish(said), "stop_reason": None}


def _usage(said: list[Speech]) -> dict[str, float]:
    made = float(sum(each.tokens for each in said))
    read = float(said[0].prompt_tokens)
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _event(
    key: str, message: dict[str, Any], finish: str | None, said: Speech, made: int, text: bool
) -> bytes:
    usage = {"prompt_tokens": said.prompt_tokens, "completion_tokens": made,
             "total_tokens": said.prompt_tokens + made}  # fmt: skip
    what = {"text": message.get("content", "")} if text else {key: message}
    choice = {"index": 0, "logprobs": None, "finish_reason": finish, **what}
    chunk = {**_head("chat.completion.chunk"), "choices": [choice], "usage": usage}
    return b"data:" + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"
