"""The requests of one call of `generate`, and what becomes of their answers."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from memserve.errors import BadAnswer, MemserveError
from memserve.protocol import Completion, Request

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,),
    "integer": (int, float), "number": (int, float), "null": (type(None),),
}  # fmt: skip


def broken(request: Request, answer: Completion) -> BadAnswer | None:
    """The error of an answer that ended by itself and breaks the request's schema, regex or choices."""
    if request.schema is None and request.regex is None and request.choices is None:
        return None
    for sample in answer.samples or (answer,):
        if sample.finish_reason != "stop" or sample.text is None:
            continue
        reason = _reason(request, sample.text)
        if reason:
            error = BadAnswer(
                f"the answer {reason}: {sample.text[:80]!r}", hint="the server ignored the constraint"
            )
            error.retryable = False
            return error
    return None


def _reason(request: Request, text: str) -> str | None:
    if request.choices is not None:
        return None if text.strip() in request.choices else "is none of the choices"
    if request.regex is not None:
        return None if _matches(request.regex, text) else "does not match the regex"
    return _schema_reason(request.schema or {}, text)


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.fullmatch(pattern, text.strip()) is not None or re.fullmatch(pattern, text) is not None
    except re.error:
        return True


def _schema_reason(schema: Mapping[str, Any], text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return "is not JSON although a schema was asked for"
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _TYPES and not isinstance(value, _TYPES[kind]):
        return f"is not of the schema's type {kind}"
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        return f"lacks {', '.join(map(repr, missing))} of the schema" if missing else None
    return None


class Work:
    """The requests of one call, with the errors of prompts that were refused beforehand."""

    def __init__(self, items: Sequence[Request | MemserveError], keep: bool, *, many: bool) -> None:
        self._items = items
        self._many = many
        self.keep = keep
        self.requests = [item for item in items if isinstance(item, Request)]

    def result(self, answers: Sequence[Completion]) -> Completion | list[Completion]:
        """One answer to one prompt, a list to a list."""
        if not self._many:
            return self._judged(self.requests[0], answers[0])
        incoming = iter(answers)
        return [
            self._judged(item, next(incoming))
            if isinstance(item, Request)
            else Completion(text=None, error=item)
            for item in self._items
        ]

    def _judged(self, request: Request, answer: Completion) -> Completion:
        error = broken(request, answer)
        if error is None:
            return answer
        if not self.keep:
            raise error
        return replace(answer, text=None, samples=(), error=error)
