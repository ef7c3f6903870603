# ruff: noqa: E501, PERF203
"""What providers answer, whole and streamed, through their own engines over a transport that sends these bytes."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import Any

from memserve import registry
from memserve.errors import MemserveError, RemoteError
from memserve.protocol import Request


class _Answer:
    """An HTTP answer out of bytes: status, headers, an empty line, the body."""

    decoded = False

    def __init__(self, data: bytes) -> None:
        head, _, self._body = data.partition(b"\n\n")
        status, *lines = head.decode("latin-1").splitlines() or [""]
        self.status = int(status[:3]) if status[:3].isascii() and status[:3].isdigit() else 200
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), 97):
            yield self._body[start : start + 97]

    async def release(self) -> None:
        """Nothing is held."""


class _Wire:
    """A transport that answers with what it is given."""

    data = b""

    async def send(self, call: object) -> _Answer:
        return _Answer(self.data)

    def close(self) -> None:
        """Nothing is open."""


WIRE = _Wire()
PROVIDERS: dict[str, dict[str, Any]] = {
    "openai": {"dialect": "generic"}, "anthropic": {}, "gemini": {}, "pangu": {"api": "v2"},
    "bedrock": {"region": "us-east-1"}, "responses": {"dialect": "openai-responses"},
}  # fmt: skip


@cache
def _engine(provider: str, task: Any) -> Any:
    module = sys.modules["memserve.http.connect"]
    kept, module._transport = module._transport, lambda *_: WIRE  # type: ignore[attr-defined]
    try:
        return registry.find("openai" if provider == "responses" else provider).open(
            "claude-haiku-4-5" if provider == "anthropic" else "m", task=task, base_url="http://127.0.0.1:9",
            api_key="sk-key-of-a-fuzzer", max_retries=0, timeout=5, startup_timeout=0.001, **PROVIDERS[provider],
        )  # fmt: skip
    finally:
        module._transport = kept  # type: ignore[attr-defined]


def provider(name: str) -> Callable[[bytes], object]:
    """Whole, streamed, embedded and ranked, as far as the provider does."""

    async def ask(data: bytes) -> list[object]:
        WIRE.data, found = data, list[object]()
        request = Request(prompt="hello", max_tokens=5)
        engine = _engine(name, "generate")
        for work in (engine.complete(request), _streamed(engine, request), *_others(name)):
            try:
                found.append(await work)
            except (RemoteError, MemserveError) as error:
                found.append(str(error))
        assert "sk-key-of-a-fuzzer" not in str(found)
        return found

    return lambda data: asyncio.run(ask(data))


async def _streamed(engine: Any, request: Request) -> list[object]:
    return [delta async for delta in engine.astream(request)]


def _others(name: str) -> Iterator[Any]:
    if name == "openai":
        yield _engine(name, "rerank").arerank("q", ["a", "b"])
    if name in ("openai", "gemini"):
        yield _engine(name, "embed").aembed(["a"], role=None, normalize=None, dimensions=None)


def _said(*bodies: object, status: str = "200", kind: str = "application/json") -> list[bytes]:
    head = f"{status}\ncontent-type: {kind}\nretry-after: 0\n\n".encode()
    return [head + (body if isinstance(body, bytes) else json.dumps(body).encode()) for body in bodies]


def openai() -> Iterator[bytes]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {
        "role": "assistant",
        "content": "hi sk-key-of-a-fuzzer",
        "reasoning_content": "hm",
        "tool_calls": [call],
    }
    likely = {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": -2}]}]}
    whole = {"id": "x", "model": "m", "usage": usage,
             "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": likely}]}  # fmt: skip
    vectors = {"data": [{"index": 0, "embedding": [0.1, 0.2]}], "usage": usage}
    ranks = {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": 0.1}]}
    wrong = {"error": {"message": "maximum context length is 10 tokens, you asked for 20", "code": "x"}}
    yield from _said(whole, vectors, ranks)
    yield from _said(wrong, status="400")
    yield from _said(wrong, status="429")
    delta = {"choices": [{"index": 0, "delta": {**message, "tool_calls": [{"index": 0, **call}]}}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    yield from _said(_events(delta, end) + b"data: [DONE]\n\n", kind="text/event-stream")


def responses() -> Iterator[bytes]:
    part = {"type": "output_text", "text": "hi sk-key-of-a-fuzzer",
            "logprobs": [{"token": "a", "logprob": -1.0, "top_logprobs": []}]}  # fmt: skip
    items = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "x"},
        {"type": "message", "role": "assistant", "content": [part, {"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    usage = {"input_tokens": 3, "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 1}}
    whole = {"id": "x", "model": "m", "status": "incomplete", "output": items, "usage": usage,
             "incomplete_details": {"reason": "max_output_tokens"}}  # fmt: skip
    yield from _said(whole, {**whole, "status": "failed", "error": {"code": "x", "message": "no"}})
    yield from _said(_events(
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "hm"},
        {"type": "response.output_text.delta", "delta": "hi"},
        *({"type": "response.output_item.done", "item": item} for item in items),
        {"type": "response.incomplete", "response": {**whole, "output": []}},
    ), kind="text/event-stream")  # fmt: skip


def _events(*rows: Any) -> bytes:
    named = (f"event: {row['type']}\n" if "type" in row else "" for row in rows)
    return b"".join(
        f"{name}data: {json.dumps(row)}\n\n".encode() for name, row in zip(named, rows, strict=True)
    )


def anthropic() -> Iterator[bytes]:
    usage = {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 1}
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"},
              {"type": "tool_use", "id": "t", "name": "f", "input": {}}]  # fmt: skip
    whole = {
        "type": "message",
        "id": "x",
        "model": "m",
        "content": blocks,
        "stop_reason": "end_turn",
        "usage": usage,
    }
    yield from _said(whole)
    yield from _said({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, status="529")
    yield from _said(_events(
        {"type": "message_start", "message": {**whole, "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
        {"type": "message_stop"},
    ), kind="text/event-stream")  # fmt: skip


def gemini() -> Iterator[bytes]:
    parts = [{"text": "hm", "thought": True}, {"text": "hi"}, {"functionCall": {"name": "f", "args": {}}}]
    whole = {"candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}],
             "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}, "modelVersion": "m"}  # fmt: skip
    yield from _said(whole, {"embeddings": [{"values": [0.1, 0.2]}]})
    yield from _said({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "no", "details": [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]}}, status="429")  # fmt: skip
    yield from _said(_events(whole), kind="text/event-stream")


def bedrock() -> Iterator[bytes]:
    content = [{"text": "hi"}, {"toolUse": {"toolUseId": "t", "name": "f", "input": {}}}]
    usage = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    yield from _said({"output": {"message": {"role": "assistant", "content": content}}, "usage": usage,
                      "stopReason": "end_turn"})  # fmt: skip
    yield from _said({"message": "no"}, status="400")
    frames = (("messageStart", {"role": "assistant"}),
              ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "hi"}}),
              ("messageStop", {"stopReason": "end_turn"}), ("metadata", {"usage": usage}))  # fmt: skip
    yield from _said(b"".join(_frame(*one) for one in frames), kind="application/vnd.amazon.eventstream")


def _frame(name: str, body: object) -> bytes:
    from zlib import crc32

    pairs = {":event-type": name, ":message-type": "event", ":content-type": "application/json"}
    head = b"".join(bytes([len(k)]) + k.encode() + b"\7" + struct.pack(">H", len(v)) + v.encode()
                    for k, v in pairs.items())  # fmt: skip
    payload = json.dumps(body).encode()
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    whole = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return whole + struct.pack(">I", crc32(whole))


def pangu() -> Iterator[bytes]:
    yield from openai()
    yield from _said({"error_code": "PANGU.0001", "error_msg": "no"}, status="403")
