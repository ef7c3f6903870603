"""Proves that a constrained answer keeps its constraint: some servers ignore it and answer freely."""

import json
import re
from collections.abc import Mapping
from typing import Any

from memserve.errors import BadAnswer
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
