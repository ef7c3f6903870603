"""Bedrock's runtime on loopback: Converse, its stream in Amazon's framing, and token counts."""

from __future__ import annotations

import json
import re
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from fake_provider import CONTEXT, FakeProvider, Seen, Speech, count, instance, refusal

ACCESS, SECRET, BEARER = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "bedrock-api-key-secret"
_REASONS = {"stop": "end_turn", "length": "max_tokens", "stop_sequence": "stop_sequence"}
_BODY = {"messages", "system", "inferenceConfig", "toolConfig", "guardrailConfig", "outputConfig",
         "additionalModelRequestFields", "requestMetadata", "performanceConfig", "serviceTier"}  # fmt: skip
_FLOOR = re.compile(r"^/model/([^/]+)/(converse|converse-stream|count-tokens|invoke)$")
_WIDTH = 16


@dataclass
class FakeBedrock(FakeProvider):
    """Takes one key pair (its signature is judged by botocore elsewhere) and one API key."""

    async def answer(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        shown = seen.headers.get("authorization", "")
        if shown != f"Bearer {BEARER}" and f"Credential={ACCESS}/" not in shown:
            return error(403, "UnrecognizedClientException", "The security token included is invalid.")
        found = _FLOOR.match(seen.path)
        if found is None:
            return error(404, "ResourceNotFoundException", "no such path")
        model, action, body = unquote(found[1]), found[2], seen.json
        if action == "count-tokens":
            return web.json_response({"inputTokens": count(_prompt(body["input"]["converse"])) + 3})
        if action == "invoke":
            return _vectors(model, body)
        wrong = _wrong(body, model)
        if wrong:
            return error(400, "ValidationException", wrong)
        said = self._said(body)
        if action == "converse":
            return _whole(body, said)
        return await _stream(request, body, said)

    def _said(self, body: dict[str, Any]) -> Speech:
        config = body.get("inferenceConfig", {})
        cold = body.get("additionalModelRequestFields", {}).get("top_k") == 1
        heat = 0.0 if cold else config.get("temperature", 0.0)
        return self.say(
            _prompt(body), config.get("maxTokens", 64), config.get("stopSequences"), temperature=heat
        )


def _vectors(model: str, body: dict[str, Any]) -> web.Response:
    titan = "titan" in model
    taken = {"inputText"} if titan else {"texts", "input_type", "embedding_types", "truncate"}
    if "v2" in model:
        taken |= {"dimensions", "normalize"}
    if "v4" in model:
        taken |= {"output_dimension"}
    texts = [body.get("inputText")] if titan else body.get("texts", [])
    if set(body) - taken or not all(texts) or len(texts) > 96 or not (titan or "input_type" in body):
        return error(400, "ValidationException", f"Malformed input request: {sorted(body)}")
    width = body.get("dimensions") or body.get("output_dimension") or _WIDTH
    if width > _WIDTH:
        return error(400, "ValidationException", f"{width} is not a valid enum value")
    rows = [_row(text, width, body.get("normalize", titan)) for text in texts]
    counted = {"x-amzn-bedrock-input-token-count": str(sum(map(count, texts)))}
    if titan:
        told = {"embedding": rows[0], "inputTextTokenCount": count(texts[0])}
        return web.json_response(told, headers=counted)
    told = {"id": "e-1", "response_type": "embeddings_by_type", "embeddings": {"float": rows}, "texts": texts}
    return web.json_response(told, headers=counted)


def _row(text: str, width: int, unit: bool) -> list[float]:
    made = [zlib.crc32(f"{text}/{place}".encode()) / 2**31 - 1 for place in range(width)]
    length = sum(value * value for value in made) ** 0.5 if unit else 1.0
    return [value / length for value in made]


def _prompt(body: dict[str, Any]) -> str:
    tools = body.get("toolConfig", {}).get("tools", ())
    return json.dumps([body.get("system"), body["messages"], *tools], sort_keys=True)


def _wrong(body: dict[str, Any], model: str) -> str | None:
    config = body.get("inferenceConfig", {})
    roles = [message["role"] for message in body["messages"]]
    if set(body) - _BODY:
        return f"unexpected field {sorted(set(body) - _BODY)[0]}"
    if any(a == b for a, b in pairwise(roles)):
        return "A conversation must alternate between user and assistant roles."
    if not 0 <= config.get("temperature", 0) <= 1:
        return "Value at 'inferenceConfig.temperature' failed to satisfy constraint"
    if {"temperature", "topP"} <= set(config) and re.search(r"(?:opus-4-[156]|-4-[56])(?!\d)", model):
        return "`temperature` and `top_p` cannot both be specified for this model."
    if "temperature" in config and re.search(r"(?:opus|sonnet)-5", model):
        return "`temperature` is deprecated for this model."
    if count(_prompt(body)) + 3 + config.get("maxTokens", 64) > CONTEXT:
        return "Input is too long for requested model."
    return None


def _blocks(body: dict[str, Any], said: Speech) -> list[dict[str, Any]]:
    choice = body.get("toolConfig", {}).get("toolChoice", {})
    if "any" in choice or "tool" in choice:
        tools = [one["toolSpec"] for one in body["toolConfig"]["tools"]]
        name = choice.get("tool", {}).get("name", tools[0]["name"])
        tool = next(one for one in tools if one["name"] == name)
        made = instance(tool["inputSchema"]["json"])
        return [{"toolUse": {"toolUseId": "tooluse_1", "name": tool["name"], "input": made}}]
    form = body.get("outputConfig", {}).get("textFormat")
    if form is None:
        return [{"text": said.text}]
    return [{"text": json.dumps(instance(json.loads(form["structure"]["jsonSchema"]["schema"])))}]


def _reason(blocks: list[dict[str, Any]], said: Speech) -> str:
    return "tool_use" if "toolUse" in blocks[0] else _REASONS[said.finish]


def _usage(said: Speech) -> dict[str, int]:
    return {
        "inputTokens": said.prompt_tokens - 2, "outputTokens": said.tokens, "cacheReadInputTokens": 2,
        "cacheWriteInputTokens": 0, "totalTokens": said.prompt_tokens + said.tokens,
    }  # fmt: skip


def _whole(body: dict[str, Any], said: Speech) -> web.Response:
    blocks = _blocks(body, said)
    message = {"role": "assistant", "content": blocks}
    found = {"output": {"message": message}, "stopReason": _reason(blocks, said), "usage": _usage(said),
             "metrics": {"latencyMs": 5}}  # fmt: skip
    return web.json_response(found, headers={"x-amzn-RequestId": "req-1"})


async def _stream(request: web.Request, body: dict[str, Any], said: Speech) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/vnd.amazon.eventstream"})
    await response.prepare(request)
    for one in frames(body, said):
        await response.write(one)
    await response.write_eof()
    return response


def frames(body: dict[str, Any], said: Speech) -> list[bytes]:
    blocks = _blocks(body, said)
    block = blocks[0]
    deltas: list[dict[str, Any]] = [{"text": piece} for piece in said.pieces]
    start: list[bytes] = []
    if "toolUse" in block:
        known = {"toolUseId": block["toolUse"]["toolUseId"], "name": block["toolUse"]["name"]}
        start = [frame("contentBlockStart", {"start": {"toolUse": known}, "contentBlockIndex": 0})]
        words = json.dumps(block["toolUse"]["input"])
        deltas = [{"toolUse": {"input": part}} for part in (words[:1], words[1:])]
    elif block["text"] != said.text:
        deltas = [{"text": block["text"]}]
    return [
        frame("messageStart", {"role": "assistant"}),
        *start,
        *[frame("contentBlockDelta", {"delta": delta, "contentBlockIndex": 0}) for delta in deltas],
        frame("contentBlockStop", {"contentBlockIndex": 0}),
        frame("messageStop", {"stopReason": _reason(blocks, said)}),
        frame("metadata", {"usage": _usage(said), "metrics": {"latencyMs": 5}}),
    ]


def frame(event: str, payload: dict[str, Any], **headers: str) -> bytes:
    """One event in Amazon's framing; other headers take the place of an event's."""
    names = {f":{name.replace('_', '-')}": value for name, value in headers.items()} or {
        ":event-type": event, ":content-type": "application/json", ":message-type": "event",
    }  # fmt: skip
    data = json.dumps(payload).encode()
    head = b"".join(
        bytes([len(n)]) + n.encode() + b"\x07" + struct.pack(">H", len(v)) + v.encode()
        for n, v in names.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(data), len(head))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + data
    return body + struct.pack(">I", zlib.crc32(body))


def error(status: int, kind: str, message: str) -> web.Response:
    return refusal(status, {"message": message}, x_amzn_ErrorType=f"{kind}:http://internal.amazon.com/")
