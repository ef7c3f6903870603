"""The common batch format: lines of `custom_id` and `body` as requests, answers as lines of its output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memserve.errors import InvalidInput
from memserve.run.store import files
from memserve.run.summary import answers

_SAME = (
    "messages", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "tools", "tool_choice",
    "dimensions",
)  # fmt: skip
_OTHER = {"max_completion_tokens": "max_tokens", "input": "text"}
_READ = frozenset(
    {*_SAME, *_OTHER, "model", "prompt", "stream", "logprobs", "top_logprobs", "response_format"}
)


def is_line(value: Any) -> bool:
    """Whether this is a line of that format."""
    return isinstance(value, Mapping) and "custom_id" in value and "body" in value


def request(value: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """The line as a request; refuses what would be lost, and a line for another model."""
    body = value["body"]
    if not isinstance(body, Mapping):
        raise InvalidInput("body is an object")
    unknown = next((name for name in body if name not in _READ), None)
    if unknown is not None or body.get("stream"):
        raise InvalidInput(f"body.{str(unknown or 'stream')[:60]} is not for a run")
    if model and body.get("model") not in (None, model):
        raise InvalidInput(f"the line is for the model {str(body['model'])[:80]!r}, and {model!r} answers")
    found = {name: body[name] for name in _SAME if name in body}
    found |= {_OTHER[name]: body[name] for name in _OTHER if name in body}
    if "prompt" in body:
        found["prompt"] = {"raw": body["prompt"]} if isinstance(body["prompt"], str) else body["prompt"]
    if body.get("logprobs"):
        found["logprobs"] = body.get("top_logprobs") or 0
    return {"id": value["custom_id"], **found, **_constraint(body.get("response_format"))}


def _constraint(wanted: Any) -> dict[str, Any]:
    if wanted is None or wanted == {"type": "text"}:
        return {}
    inner = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    if not isinstance(inner, Mapping) or "schema" not in inner:
        raise InvalidInput("body.response_format is text or json_schema for a run")
    return {"schema": inner["schema"]}


def lines(output: str | Path) -> Iterator[dict[str, Any]]:
    """Every answer of an output, and every failure beside it, as lines of that format."""
    for row in answers(output):
        whole = {"status_code": 200, "request_id": row.get("request_id"), "body": _body(row)}
        yield {**_name(row), "response": whole, "error": None}
    failed = files.failed_beside(Path(output))
    for row in answers(failed) if failed.exists() else ():
        said = {"code": row.get("code") or row["error"], "message": row["message"]}
        yield {**_name(row), "response": None, "error": said}


def _name(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": f"memserve-{row.get('key')}", "custom_id": str(row["id"])}


def write(output: Path, target: Path) -> None:
    """All of them into a file."""
    with target.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines(output))


def _body(row: Mapping[str, Any]) -> dict[str, Any]:
    told = row.get("usage") or {}
    used = {name: told.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")}
    shared = {"model": row.get("model"), "usage": {**used, "total_tokens": sum(used.values())}}
    if "embedding" in row:
        data = [{"object": "embedding", "index": 0, "embedding": row["embedding"]}]
        return {"object": "list", "data": data, **shared}
    samples = row.get("samples") or [row]
    return {
        "id": row.get("request_id"), "object": "chat.completion", "created": int(row.get("at") or 0),
        "choices": [_choice(index, sample) for index, sample in enumerate(samples)], **shared,
    }  # fmt: skip


def _choice(index: int, sample: Mapping[str, Any]) -> dict[str, Any]:
    calls = [
        {"id": call.get("id"), "type": "function",
         "function": {"name": call.get("name"), "arguments": call.get("arguments")}}
        for call in sample.get("tool_calls") or ()
    ]  # fmt: skip
    message = {"role": "assistant", "content": sample.get("text"), "refusal": sample.get("refusal")}
    tokens = sample.get("logprobs")
    return {
        "index": index, "message": {**message, **({"tool_calls": calls} if calls else {})},
        "finish_reason": sample.get("finish_reason"), "logprobs": {"content": tokens} if tokens else None,
    }  # fmt: skip
