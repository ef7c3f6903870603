"""Proves that a constrained answer keeps its constraint: some servers ignore it and answer freely."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from memserve.client.schema import OfModel
from memserve.errors import BadAnswer
from memserve.protocol import Completion, Request, Sample

Said = TypeVar("Said", Completion, Sample)

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,),
    "integer": (int, float), "number": (int, float), "null": (type(None),),
}  # fmt: skip


def broken(request: Request, answer: Completion) -> BadAnswer | None:
    """The error of an answer that ended by itself and breaks the request's schema, regex or choices."""
    for sample in answer.samples or (answer,):
        if reason := _reason(request, sample):
            said = f"the answer {reason}: {(sample.text or '')[:80]!r}"
            error = BadAnswer(said, hint="the server ignored the constraint")
            error.retryable = False
            return error
    return None


def again(request: Request, answer: Completion) -> Request | None:
    """The request that asks once more where an answer breaks its schema, with the validator's words."""
    reason = _reason(request, answer) if request.reask else None
    if reason is None:
        return None
    first = request.prompt
    asked: Any = [{"role": "user", "content": first}] if isinstance(first, str) else first
    words = f"Your answer {reason}. Answer again, with nothing but JSON that keeps the schema."
    more = [{"role": "assistant", "content": answer.text}, {"role": "user", "content": words}]
    return replace(request, prompt=[*asked, *more], reask=request.reask - 1)


def parsed(request: Request, answer: Said) -> Said:
    """The answer with its value, where it keeps a schema."""
    if request.schema is None or answer.text is None or answer.finish_reason != "stop":
        return answer
    value = json.loads(answer.text)
    model = request.schema.model if isinstance(request.schema, OfModel) else None
    return replace(answer, parsed=value if model is None else model.model_validate(value))


def _reason(request: Request, said: Completion | Sample) -> str | None:
    text = said.text
    if text is None or said.finish_reason != "stop":
        return None
    if request.choices is not None:
        return None if text.strip() in request.choices else "is none of the choices"
    if request.regex is not None:
        return None if _matches(request.regex, text) else "does not match the regex"
    return None if request.schema is None else _schema_reason(request.schema, text)


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
    if isinstance(schema, OfModel):
        return _model_reason(schema.model, value)
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _TYPES and not isinstance(value, _TYPES[kind]):
        return f"is not of the schema's type {kind}"
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        return f"lacks {', '.join(map(repr, missing))} of the schema" if missing else None
    return None


def _model_reason(model: Any, value: Any) -> str | None:
    try:
        model.model_validate(value)
    except ValueError as error:  # pydantic's ValidationError is one
        found: Any = error
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found.errors()[:3])
        return f"breaks the schema ({told})"
    return None
