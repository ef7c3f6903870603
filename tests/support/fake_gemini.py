"""The Gemini API on loopback: generation, streams, token counts and embeddings."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from fake_provider import CONTEXT, FakeProvider, Seen, Speech, count, instance, refusal, sse

_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "stop_sequence": "STOP"}
_CONFIG = {
    "temperature", "topP", "topK", "candidateCount", "maxOutputTokens", "stopSequences", "seed",
    "responseLogprobs", "logprobs", "responseMimeType", "responseSchema", "responseJsonSchema",
    "thinkingConfig", "presencePenalty", "frequencyPenalty",
}  # fmt: skip
_BODY = {"contents", "systemInstruction", "generationConfig", "tools", "toolConfig", "safetySettings",
         "cachedContent", "model"}  # fmt: skip
WIDTH = 16


@dataclass
class FakeGemini(FakeProvider):
    """Takes one key, in its header alone; the word FORBIDDEN blocks a prompt."""

    key: str = "AIza-very-secret-key"

    async def answer(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        if "key=" in seen.path or seen.headers.get("x-goog-api-key") != self.key:
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
            return error(400, "INVALID_ARGUMENT", "API key not valid.", details)
        route = seen.path.partition("?")[0].rpartition(":")[2]
        if not seen.path.startswith("/v1beta/models/"):
            return error(404, "NOT_FOUND", "no such path")
        return await getattr(self, f"_{route}")(seen, request)

    async def _generateContent(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        body = seen.json
        wrong = _wrong(body)
        if wrong is not None:
            return wrong
        said = self._said(body)
        found = [_candidate(body, each, i) for i, each in enumerate(said)]
        return web.json_response({"candidates": found, "usageMetadata": _usage(said), **_HEAD})

    async def _streamGenerateContent(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        body = seen.json
        wrong = _wrong(body)
        if wrong is not None:
            return wrong
        assert request.query["alt"] == "sse"
        said = self._said(body)[0]
        return await sse(request, _events(body, said))

    async def _countTokens(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        body = seen.json.get("generateContentRequest", seen.json)
        return web.json_response({"totalTokens": count(_prompt(body)) + 3})

    async def _batchEmbedContents(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        asked = seen.json["requests"]
        if len(asked) > 100:
            return error(400, "INVALID_ARGUMENT", "at most 100 requests can be in one batch")
        return web.json_response({"embeddings": [{"values": _vector(each)} for each in asked]})

    def _said(self, body: dict[str, Any]) -> list[Speech]:
        config = body.get("generationConfig", {})
        return [
            self.say(
                _prompt(body), config.get("maxOutputTokens", 64), config.get("stopSequences"),
                temperature=0.0 if config.get("topK") == 1 else config.get("temperature", 0.0),
                seed=None if "seed" not in config else config["seed"] * 10 + i,
            )
            for i in range(config.get("candidateCount", 1))
        ]  # fmt: skip


_HEAD = {"modelVersion": "gemini-2.5-flash", "responseId": "r-1"}


def _prompt(body: dict[str, Any]) -> str:
    own = body.get("systemInstruction", {}).get("parts")
    return json.dumps([own, body["contents"], *body.get("tools", ())], sort_keys=True)


def _wrong(body: dict[str, Any]) -> web.Response | None:
    config = body.get("generationConfig", {})
    unknown = (set(body) - _BODY) | (set(config) - _CONFIG)
    if unknown:
        text = f'Invalid JSON payload received. Unknown name "{sorted(unknown)[0]}": Cannot find field.'
        return error(400, "INVALID_ARGUMENT", text)
    prompt = _prompt(body)
    if "FORBIDDEN" in prompt:
        return web.json_response({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **_HEAD})
    if count(prompt) + 3 + config.get("maxOutputTokens", 64) > CONTEXT:
        text = f"The input token count ({count(prompt)}) exceeds the maximum number of tokens allowed"
        text += f" ({CONTEXT})"
        return error(400, "INVALID_ARGUMENT", text)
    return None


def _parts(body: dict[str, Any], said: Speech) -> list[dict[str, Any]]:
    config = body.get("generationConfig", {})
    how = body.get("toolConfig", {}).get("functionCallingConfig", {})
    if how.get("mode") == "ANY":
        tools = body["tools"][0]["functionDeclarations"]
        name = how.get("allowedFunctionNames", [tools[0]["name"]])[0]
        tool = next(one for one in tools if one["name"] == name)
        schema = tool.get("parametersJsonSchema") or tool.get("parameters") or {}
        return [{"functionCall": {"name": tool["name"], "args": instance(schema)}}]
    schema = config.get("responseSchema") or config.get("responseJsonSchema")
    if schema is None:
        return [{"text": said.text}]
    value = instance(schema)
    return [{"text": value if config["responseMimeType"] == "text/x.enum" else json.dumps(value)}]


def _candidate(body: dict[str, Any], said: Speech, index: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "content": {"role": "model", "parts": _parts(body, said)},
        "finishReason": _REASONS[said.finish],
        "index": index,
    }
    most = body.get("generationConfig", {}).get("logprobs")
    if most is not None:
        found["logprobsResult"] = _logprobs(said, most)
    return found


def _logprobs(said: Speech, most: int) -> dict[str, Any]:
    chosen = [{"token": piece, "tokenId": i, "logProbability": -0.25} for i, piece in enumerate(said.pieces)]
    rivals = [{"token": f"rival{i}", "tokenId": 900 + i, "logProbability": -2.0 - i} for i in range(most)]
    tops = [{"candidates": [one, *rivals][:most]} for one in chosen]
    return {"chosenCandidates": chosen, "topCandidates": tops}


def _usage(said: list[Speech]) -> dict[str, int]:
    made = sum(each.tokens for each in said)
    return {
        "promptTokenCount": said[0].prompt_tokens, "candidatesTokenCount": made,
        "totalTokenCount": said[0].prompt_tokens + made, "cachedContentTokenCount": 2,
    }  # fmt: skip


def _events(body: dict[str, Any], said: Speech) -> list[bytes]:
    parts = _parts(body, said)
    pieces = [{"text": piece} for piece in said.pieces] if parts == [{"text": said.text}] else parts
    chunks: list[dict[str, Any]] = [
        {"candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0}],
         "usageMetadata": {"promptTokenCount": said.prompt_tokens}, **_HEAD}
        for part in pieces
    ]  # fmt: skip
    last = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": _REASONS[said.finish]}
    chunks.append({"candidates": [{**last, "index": 0}], "usageMetadata": _usage([said]), **_HEAD})
    return [event(chunk) for chunk in chunks]


def event(chunk: dict[str, Any]) -> bytes:
    """One event of a stream, with the line ends that Google sends."""
    return f"data: {json.dumps(chunk)}\r\n\r\n".encode()


def _vector(asked: dict[str, Any]) -> list[float]:
    text = asked["content"]["parts"][0]["text"] + asked.get("taskType", "")
    digest = hashlib.sha256(text.encode()).digest()
    raw = [byte - 127.5 for byte in digest[:WIDTH]]
    length = math.sqrt(sum(value * value for value in raw))
    return [value / length for value in raw][: asked.get("outputDimensionality", WIDTH)]


def error(status: int, code: str, message: str, details: list[Any] | None = None) -> web.Response:
    found = {"code": status, "message": message, "status": code, "details": details or []}
    return refusal(status, {"error": found})
