"""A JSON schema checked before any work, and an answer held against it: some servers ignore it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from memserve.errors import BadAnswer, InvalidInput
from memserve.protocol import Completion, Request, Sample

TYPES = frozenset({"object", "array", "string", "boolean", "integer", "number", "null"})
_BRANCHES = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")


class OfModel(dict[str, Any]):
    """The JSON schema of a pydantic model, and the model."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.model_json_schema())
        self.model = model


def check(schema: object, where: str = "schema") -> None:
    """Raise InvalidInput where the schema, or a part of it, cannot be meant."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise InvalidInput(f"{where} is a mapping, not {type(schema).__name__}")
    _types(schema.get("type"), where)
    required = schema.get("required", [])
    if isinstance(required, str) or not isinstance(required, Sequence):
        raise InvalidInput(f"{where}.required is a list of names")
    for name in _BRANCHES:
        for position, branch in enumerate(_list(schema, name, where)):
            check(branch, f"{where}.{name}[{position}]")
    for name in _NAMED:
        for key, part in _table(schema, name, where).items():
            check(part, f"{where}.{name}.{key}")
    for name in _SINGLE:
        if name in schema and not isinstance(schema[name], list):
            check(schema[name], f"{where}.{name}")


def _types(kind: object, where: str) -> None:
    kinds = [kind] if isinstance(kind, str) else kind
    if kinds is None:
        return
    if not isinstance(kinds, Sequence) or not kinds or not TYPES.issuperset(map(str, kinds)):
        raise InvalidInput(f"{where}.type is one of {', '.join(sorted(TYPES))}, not {kind!r}")


def _list(schema: Mapping[str, Any], name: str, where: str) -> Sequence[Any]:
    found = schema.get(name, ())
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise InvalidInput(f"{where}.{name} is a list of schemas")
    return found


def _table(schema: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    found = schema.get(name, {})
    if not isinstance(found, Mapping):
        raise InvalidInput(f"{where}.{name} is a mapping of schemas")
    return found


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
