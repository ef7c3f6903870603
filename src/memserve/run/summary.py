"""What a run did, and its answers read back: as rows, as a matrix, as lines of the common batch format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve.errors import InvalidInput, JournalBroken
from memserve.http.body import understood
from memserve.run.store import files, record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Summary:
    """Counts of requests, tokens and dollars. Each of these requests is in exactly one of the counts."""

    output: str
    failed_output: str
    total: int = 0
    """Requests read from the input; of a run that was stopped, all of them where that is known."""
    done: int = 0
    """Asked and answered by this run."""
    cached: int = 0
    """Answered out of the answer cache."""
    resumed: int = 0
    """Answered already when the run began."""
    repeated: int = 0
    """The same request under the same id stood earlier in the input."""
    failed: int = 0
    """In the file of failures, with a reason each."""
    pending: int = 0
    """Not answered, because the run was stopped."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that the provider found in its prefix cache."""
    usd: float | None = None
    """Of this run; None where no price is known."""
    seconds: float = 0.0
    stopped: str | None = None
    """Why the run ended before its input did."""

    @property
    def answered(self) -> int:
        """Requests with an answer in the output."""
        return self.done + self.cached + self.resumed

    @property
    def tokens(self) -> int:
        """Prompt and answer tokens of this run."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def tokens_per_second(self) -> float:
        """Answer tokens per second of this run."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        parts = [f"{self.done} answered"]
        counts = (
            (self.cached, "from the cache"), (self.resumed, "answered before"), (self.repeated, "repeated"),
        )  # fmt: skip
        parts += [f"{count} {words}" for count, words in counts if count]
        parts.append(f"{self.failed} failed")
        if self.pending:
            parts.append(f"{self.pending} not asked")
        parts.append(f"{self.tokens} tokens ({self.cached_tokens} of them cached)")
        if self.usd is not None:
            parts.append(f"${self.usd:.4f}")
        parts.append(f"{self.seconds:.1f} s")
        places = f"{self.output}" + (f", failures in {self.failed_output}" if self.failed else "")
        return f"{', '.join(parts)}; answers in {places}"


def answers(output: str | Path) -> Iterator[dict[str, Any]]:
    """Every answer of an output, also while a run is writing it: a line that is not whole yet is left out.

    Raises JournalBroken at one that is not what was written.
    """
    with Path(output).open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                if (row := record.read(line)) is None:
                    raise JournalBroken(f"line {number} of {output} is not what was written there",
                                        hint=f"memserve run --repair {output}")  # fmt: skip
                yield row


def vectors(output: str | Path) -> tuple[list[str | int], NDArray[np.float32]]:
    """The ids and the matrix of an embedder's run, in the order of its input; of two answers the later."""
    import numpy as np

    def matrix(rows: list[dict[str, Any]]) -> tuple[list[str | int], NDArray[np.float32]]:
        found = {row["id"]: row for row in rows}
        ordered = sorted(found.values(), key=lambda row: row.get("index", 0))
        return [row["id"] for row in ordered], np.array([row["embedding"] for row in ordered], np.float32)

    rows = [*answers(output)]
    if (bare := next((row for row in rows if "embedding" not in row), None)) is not None:
        raise InvalidInput(f"{output} holds no vectors: the answer {bare.get('id')!r} is none",
                           hint="memserve.run.answers reads the answers of any run")  # fmt: skip
    return understood(matrix, rows)


OURS = "memserve-"
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
    return isinstance(value, Mapping) and "custom_id" in value


def request(value: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """The line as a request; refuses what would be lost, and a line for another model."""
    body = value.get("body")
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
        whole = {"status_code": 200, "request_id": row.get("request_id"), "body": understood(_body, row)}
        yield {**_name(row), "response": whole, "error": None}
    failed = files.failed_beside(Path(output))
    for row in (row for row in answers(failed) if "index" in row) if failed.exists() else ():
        said = {"code": row.get("code") or row["error"], "message": row["message"]}
        yield {**_name(row), "response": None, "error": said}


def _name(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": f"{OURS}{row.get('key') or row.get('index')}", "custom_id": str(row["id"])}


def is_ours(path: Path) -> bool:
    """Whether a file is empty or begins as such lines do."""
    begin = f'{{"id": "{OURS}'.encode()
    with path.open("rb") as file:
        return file.read(len(begin)) in (b"", begin)


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
