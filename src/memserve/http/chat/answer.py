"""Reads a whole answer in the chat (or the older completions) shape."""

import logging
from typing import Any

from memserve.http import failure
from memserve.http.body import bad
from memserve.http.chat import field
from memserve.protocol import Completion, Sample, ToolCall

log = logging.getLogger("memserve.http")


def failure_in(body: Any) -> failure.Words | None:
    """The failure that stands in a body although its status says success."""
    if not isinstance(body, dict):
        return None
    if body.get("error"):
        return failure.read(body) or failure.Words("the server tells of an error without words")
    if body.get("choices"):
        return None
    spoken = body.get("error_code") or body.get("errorCode") or body.get("error_msg")
    return failure.read(body) if spoken or body.get("object") == "error" else None


def completion(body: Any, *, n: int = 1, key: str = "message", logprobs: bool = False) -> Completion:
    """The Completion that a body holds, or BadAnswer. `key` is where a choice keeps its message."""
    samples = [_sample(choice, key) for choice in _choices(body, n)]
    first = samples[0]
    if logprobs and first.logprobs is None:
        log.warning("log-probabilities were asked for and the server sent none")
    return Completion(
        text=first.text, finish_reason=first.finish_reason, token_ids=first.token_ids,
        logprobs=first.logprobs, tool_calls=first.tool_calls, reasoning=first.reasoning,
        refusal=first.refusal, usage=field.usage(body.get("usage")),
        samples=tuple(samples) if n > 1 else (),
        model=body["model"] if isinstance(body.get("model"), str) else None,
        request_id=body["id"] if isinstance(body.get("id"), str) else None,
    )  # fmt: skip


def _choices(body: Any, n: int) -> list[dict[str, Any]]:
    if not isinstance(body, dict):
        raise bad(f"the answer is a JSON {type(body).__name__}, not an object")
    choices = body.get("choices")
    if not isinstance(choices, list):
        raise bad("the answer has no list of choices")
    if not choices:
        raise bad("the answer has no choice", retries=1)
    if not all(isinstance(choice, dict) for choice in choices):
        raise bad("a choice of the answer is not an object")
    if len(choices) != n:
        raise bad(f"{n} samples were asked for and {len(choices)} came")
    if n > 1:
        choices = sorted(choices, key=lambda choice: _index(choice))
        if [choice.get("index") for choice in choices] != list(range(n)):
            raise bad("the samples are numbered wrongly")
    return choices


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else -1


def _sample(choice: dict[str, Any], key: str) -> Sample:
    """One choice: a chat message, or the bare text of the completions shape."""
    reason = field.finish(choice.get("finish_reason"))
    if choice.get("finish_reason") in (None, ""):
        log.warning("the answer does not say why it ended")
    ids = choice.get("token_ids")
    token_ids = tuple(ids) if isinstance(ids, list) and all(isinstance(i, int) for i in ids) else None
    logprobs = field.logprobs(choice.get("logprobs"))
    message = choice.get(key)
    if message is None and "text" in choice:
        return Sample(field.text(choice["text"]), reason, token_ids, logprobs)
    if not isinstance(message, dict):
        raise bad(f"a choice of the answer has no {key}")
    return _of_message(message, reason, token_ids, logprobs)


def _of_message(message: dict[str, Any], reason: Any, token_ids: Any, logprobs: Any) -> Sample:
    calls: tuple[ToolCall, ...] = field.tool_calls(message)
    refusal = field.text(message.get("refusal"))
    if refusal:
        return Sample(None, "content_filter", token_ids, logprobs, refusal=refusal)
    reasoning = field.text(message.get("reasoning_content") or message.get("reasoning"))
    content = field.text(message.get("content"))
    if content is None and not calls:
        log.warning("the answer has no text (%s)", "only reasoning" if reasoning else "content is null")
    return Sample(content, reason, token_ids, logprobs, calls, reasoning)
