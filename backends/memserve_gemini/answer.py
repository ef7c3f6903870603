"""Reads the answers of generateContent, whole or streamed."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from memserve.errors import ContentRefused, MemserveError
from memserve.http import AnswerReader, Event, failure
from memserve.http.body import bad, parse
from memserve.http.chat.answer import clean, count, finish, number
from memserve.protocol import Completion, Delta, Sample, TokenLogprob, ToolCall, Usage
from memserve_gemini.ask import finish_reasons

Fail = Callable[[failure.Words], MemserveError]


def completion(words: str, fail: Fail, *, n: int = 1) -> Completion:
    """The Completion that a body holds, or an error."""
    found = _checked(words, fail)
    candidates = found.get("candidates")
    if not isinstance(candidates, list) or not candidates:
        raise bad("the answer has no candidate", retries=1)
    if len(candidates) != n or not all(isinstance(each, dict) for each in candidates):
        raise bad(f"{n} samples were asked for and {len(candidates)} came")
    samples = [_sample(candidate) for candidate in sorted(candidates, key=_index)]
    first = samples[0]
    return Completion(
        text=first.text, finish_reason=first.finish_reason, logprobs=first.logprobs,
        tool_calls=first.tool_calls, reasoning=first.reasoning, usage=usage(found.get("usageMetadata")),
        samples=tuple(samples) if n > 1 else (), model=_word(found, "modelVersion"),
        request_id=_word(found, "responseId"),
    )  # fmt: skip


def _checked(words: str, fail: Fail) -> dict[str, Any]:
    """The parsed body, unless it speaks of a failure or of a prompt that was blocked."""
    found = parse(words)
    found = found[0] if isinstance(found, list) and found else found
    if not isinstance(found, dict):
        raise bad("the answer is not an object")
    if "error" in found:
        raise fail(failure.read(found) or failure.Words("the server failed"))
    feedback = found.get("promptFeedback")
    blocked = feedback.get("blockReason") if isinstance(feedback, dict) else None
    if blocked and not found.get("candidates"):
        said = feedback.get("blockReasonMessage") if isinstance(feedback, dict) else ""
        raise ContentRefused(f"the prompt was blocked: {blocked} {said or ''}".rstrip(), code=str(blocked))
    return found


def usage(found: Any) -> Usage:
    """Tokens read and written; thoughts are written, and paid for."""
    if not isinstance(found, dict):
        return Usage()
    read, said = count(found.get("promptTokenCount")), count(found.get("candidatesTokenCount"))
    thought, tools = count(found.get("thoughtsTokenCount")), count(found.get("toolUsePromptTokenCount"))
    made = None if said is None and thought is None else (said or 0) + (thought or 0)
    if made is None and read is not None and (total := count(found.get("totalTokenCount"))) is not None:
        made = max(0, total - read)
    prompt = None if read is None else read + (tools or 0)
    return Usage(prompt, made, count(found.get("cachedContentTokenCount")), thought)


def _index(candidate: dict[str, Any]) -> int:
    index = candidate.get("index", 0)
    return index if isinstance(index, int) else 0


def _word(found: dict[str, Any], name: str) -> str | None:
    return found[name] if isinstance(found.get(name), str) else None


def _sample(candidate: dict[str, Any]) -> Sample:
    parts = _parts(candidate)
    calls = tuple(_call(*each) for each in enumerate(part for part in parts if "functionCall" in part))
    reason = finish(candidate.get("finishReason"), finish_reasons())
    return Sample(
        text=_text(parts, thought=False),
        finish_reason="tool_calls" if calls and reason == "stop" else reason,
        logprobs=_logprobs(candidate.get("logprobsResult")),
        tool_calls=calls,
        reasoning=_text(parts, thought=True),
    )


def _parts(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    content = candidate.get("content") or {}
    parts = content.get("parts") or [] if isinstance(content, dict) else None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise bad("a candidate's parts are not a list of objects")
    return parts


def _text(parts: list[dict[str, Any]], *, thought: bool) -> str | None:
    pieces = [part["text"] for part in parts if "text" in part and bool(part.get("thought")) is thought]
    if not all(isinstance(piece, str) for piece in pieces):
        raise bad("a part's text is not a string")
    return clean("".join(pieces)) if pieces else None


def _call(position: int, part: dict[str, Any]) -> ToolCall:
    call, signature = part["functionCall"], part.get("thoughtSignature")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise bad("a function call of the answer names no function")
    words = json.dumps(call.get("args") or {}, ensure_ascii=False)
    own = str(call.get("id") or f"call_{position}"), call["name"], words
    return ToolCall(*own, signature if isinstance(signature, str) else None)


def _logprobs(found: Any) -> tuple[TokenLogprob, ...] | None:
    chosen = found.get("chosenCandidates") if isinstance(found, dict) else None
    if not isinstance(chosen, list):
        return None
    rivals = [each.get("candidates") or [] for each in found.get("topCandidates") or [{}] * len(chosen)]
    if len(rivals) != len(chosen):
        raise bad("the log-probabilities are fewer or more than the tokens")
    return tuple(_token(one, top) for one, top in zip(chosen, rivals, strict=True))


def _token(one: dict[str, Any], top: list[dict[str, Any]]) -> TokenLogprob:
    known = ((str(each.get("token", "")), number(each.get("logProbability"))) for each in top)
    return TokenLogprob(
        str(one.get("token", "")), number(one.get("logProbability")), count(one.get("tokenId")),
        tuple((token, value) for token, value in known if value is not None),
    )  # fmt: skip


class ContentReader(AnswerReader):
    """One attempt at a stream of partial answers; it ends with its connection."""

    def __init__(self, fail: Fail) -> None:
        super().__init__(fail)
        self._usage: Any = None
        self._calls: list[ToolCall] = []

    def take(self, event: Event) -> list[Delta]:
        found = _checked(event.data, self._fail)
        self._usage = found.get("usageMetadata") or self._usage
        candidates = found.get("candidates") or []
        if not isinstance(candidates, list) or not all(isinstance(each, dict) for each in candidates):
            raise bad("the candidates of an event are not a list of objects")
        return [delta for candidate in candidates for delta in self._candidate(candidate)]

    def end(self) -> list[Delta]:
        return self._last(usage(self._usage), self._calls)

    def whole(self, words: str, headers: Mapping[str, str]) -> list[Delta]:
        full = completion(words, self._fail)
        return self._only(full)

    def _candidate(self, candidate: dict[str, Any]) -> list[Delta]:
        if _index(candidate) != 0:
            raise bad("the stream carries a sample that was not asked for")
        parts = _parts(candidate)
        for part in parts:
            if "functionCall" in part:
                self._calls.append(_call(len(self._calls), part))
        if candidate.get("finishReason"):
            self._finish = finish(candidate["finishReason"], finish_reasons())
            self._finished = True
        text, reasoning = _text(parts, thought=False) or "", _text(parts, thought=True) or ""
        return [Delta(text, reasoning=reasoning)] if text or reasoning else []
