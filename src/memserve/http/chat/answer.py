"""Reads a whole answer in the chat (or the older completions) shape, part by part."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from memserve import files
from memserve.errors import ServerFailed
from memserve.http import failure
from memserve.http.body import bad
from memserve.http.engine import ended
from memserve.protocol import Completion, FinishReason, Sample, TokenLogprob, ToolCall, Usage

log = logging.getLogger("memserve.http")
FLOOR = -9999.0
"""The log-probability of what is impossible, as vLLM and OpenAI send it."""
MOST_TOKENS = 10**8
"""Ten times the longest context."""
_OLD_CALL = "call_0"
_WORD = 32


@cache
def _reasons() -> dict[str, FinishReason | None]:
    rows = files.table(__file__, "finish.json")["reasons"]
    return {row["said"]: row["means"] for row in rows}


def finish(said: Any, known: Mapping[str, FinishReason | None] | None = None) -> FinishReason | None:
    """Why the answer ended; raises ServerFailed where it was broken off. `known`: a backend's own words."""
    if said is None or said == "":
        return None
    known = _reasons() if known is None else known
    if not isinstance(said, str) or said.lower() not in known:
        log.warning("unknown finish_reason %s", said if _is_word(said) else type(said).__name__)
        return None
    means = known[said.lower()]
    if means is None:
        raise ServerFailed(f"the server broke the answer off (finish_reason {said!r})", status=200)
    return means


def _is_word(said: Any) -> bool:
    return isinstance(said, str) and len(said) < _WORD and said.replace("_", "").isalpha()


def text(content: Any) -> str | None:
    """The text of a message's content: a string, a list of parts, or nothing."""
    if content is None:
        return None
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return clean("".join(part for part in parts if isinstance(part, str)))
    if not isinstance(content, str):
        raise bad(f"the answer's content is a {type(content).__name__}, not a string")
    return clean(content)


def reasoning(message: Mapping[str, Any]) -> str | None:
    """The thought of a message: a field of its own, or parts of the content, as Mistral sends it."""
    told = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content")
    if told or not isinstance(content, list):
        return text(told)
    parts = [part.get("thinking") for part in content if isinstance(part, dict) and part.get("thinking")]
    return "".join(text(part) or "" for part in parts) or None


def clean(words: str) -> str:
    """The words without half characters, which no file can hold."""
    if words.isascii():
        return words
    halves = words.encode("utf-16", "surrogatepass")  # two that follow each other are whole
    try:
        return halves.decode("utf-16")
    except UnicodeDecodeError:
        log.warning("the answer holds half a character; it is replaced")
        return halves.decode("utf-16", "replace")


def usage(found: Any) -> Usage:
    """Token counts; None for those that were not sent or make no sense."""
    if not isinstance(found, dict):
        return Usage()
    details = found.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    cached = found.get("prompt_cache_hit_tokens", found.get("cached_tokens")) if cached is None else cached
    made = found.get("completion_tokens_details")
    thought = made.get("reasoning_tokens") if isinstance(made, dict) else found.get("reasoning_tokens")
    prompt, completion = count(found.get("prompt_tokens")), count(found.get("completion_tokens"))
    return Usage(prompt, completion, count(cached), count(thought))


def spent(found: Any, names: Sequence[str]) -> Usage:
    """Tokens by their names: read, written, and those that a cache held or now keeps, read besides."""
    if not isinstance(found, dict):
        return Usage()
    fresh, made, cached, stored = (count(found.get(name)) for name in names)
    read = None if fresh is None else fresh + (cached or 0) + (stored or 0)
    return Usage(read, made, cached, written_tokens=stored)


def count(value: Any) -> int | None:
    """A number of tokens, or None where it is none, or none that anybody can have counted."""
    if not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value <= MOST_TOKENS:
        return int(value)
    if value is not None:
        _implausible()
    return None


@cache
def _implausible() -> None:
    log.warning("the server's token counts make no sense; those are taken as not counted")


def tool_calls(message: dict[str, Any]) -> tuple[ToolCall, ...]:
    """The calls that a message asks for."""
    calls = called(message)
    if not isinstance(calls, list):
        raise bad("tool_calls is not a list")
    return tuple(_tool_call(position, call) for position, call in enumerate(calls))


def _tool_call(position: int, call: Any) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise bad(f"tool call {position} names no function")
    return ToolCall(str(call.get("id") or f"call_{position}"), name, arguments(function) or "{}")


def arguments(function: Mapping[str, Any]) -> str:
    """Arguments as JSON text, or a piece of it; some servers send an object."""
    told = function.get("arguments")
    return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False) if told else ""


def called(message: Mapping[str, Any]) -> Any:
    """The calls of a message, the deprecated single function call among them."""
    old = message.get("function_call")
    return message.get("tool_calls") or (
        [{"id": _OLD_CALL, "function": old}] if isinstance(old, dict) else []
    )


def logprobs(found: Any) -> tuple[TokenLogprob, ...] | None:
    """Log-probabilities in the chat or the completions shape; NaN becomes None, -inf the lowest."""
    if not isinstance(found, dict):
        return None
    if isinstance(found.get("content"), list):
        return tuple(_chat_token(item) for item in found["content"] if isinstance(item, dict))
    if isinstance(found.get("tokens"), list):
        return _completion_tokens(found)
    return None


def _chat_token(item: dict[str, Any]) -> TokenLogprob:
    rivals = item.get("top_logprobs") or []
    top = [(_word(r.get("token")), number(r.get("logprob"))) for r in rivals if isinstance(r, dict)]
    token_id = item.get("token_id")
    return TokenLogprob(
        _word(item.get("token")),
        number(item.get("logprob")),
        token_id if isinstance(token_id, int) else None,
        tuple((token, value) for token, value in top if value is not None),
    )


def _completion_tokens(found: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    tokens = found["tokens"]
    values = found.get("token_logprobs") or [None] * len(tokens)
    rivals = found.get("top_logprobs") or [None] * len(tokens)
    if not len(tokens) == len(values) == len(rivals):
        raise bad("the log-probabilities are fewer or more than the tokens")
    return tuple(map(_completion_token, tokens, values, rivals))


def _completion_token(token: Any, value: Any, rivals: Any) -> TokenLogprob:
    items = rivals.items() if isinstance(rivals, dict) else ()
    top = ((str(name), number(rival)) for name, rival in items)
    return TokenLogprob(_word(token), number(value), None, tuple((n, v) for n, v in top if v is not None))


def _word(token: Any) -> str:
    return token if isinstance(token, str) else ""


def number(value: Any) -> float | None:
    """A log-probability that can be counted with."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if math.isnan(value) or value == math.inf:
        log.warning("a log-probability is not a number; it is given as None")
        return None
    return max(float(value), FLOOR)


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
        refusal=first.refusal, usage=usage(body.get("usage")),
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
    reason = finish(choice.get("finish_reason"))
    if choice.get("finish_reason") in (None, ""):
        log.warning("the answer does not say why it ended")
    ids = choice.get("token_ids")
    token_ids = tuple(ids) if isinstance(ids, list) and all(isinstance(i, int) for i in ids) else None
    likely = logprobs(choice.get("logprobs"))
    message = choice.get(key)
    if message is None and "text" in choice:
        return Sample(text(choice["text"]), reason, token_ids, likely)
    if not isinstance(message, dict):
        raise bad(f"a choice of the answer has no {key}")
    return _of_message(message, reason, token_ids, likely)


def _of_message(message: dict[str, Any], reason: Any, token_ids: Any, logprobs: Any) -> Sample:
    calls: tuple[ToolCall, ...] = tool_calls(message)
    refusal = text(message.get("refusal"))
    if refusal:
        return Sample(None, "content_filter", token_ids, logprobs, refusal=refusal)
    thought = reasoning(message)
    content = text(message.get("content"))
    if content is None and not calls:
        log.warning("the answer has no text (%s)", "only reasoning" if thought else "content is null")
    return Sample(content, ended(reason, calls), token_ids, logprobs, calls, thought)
