"""A JSON schema checked before any work, and an answer held against it: some servers ignore it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import unquote

from memserve.errors import BadAnswer, InvalidInput
from memserve.pattern import Budget, matcher
from memserve.protocol import Completion, Request, Sample

TYPES = frozenset({"object", "array", "string", "boolean", "integer", "number", "null"})
_BRANCHES = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_ROUNDS = 64


class OfModel(dict[str, Any]):
    """The JSON schema of a pydantic model, and the model."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.model_json_schema())
        self.model = model


def check(schema: object, where: str = "schema") -> None:
    """Raise InvalidInput where the schema, or a part of it, cannot be meant."""
    parts: dict[int, Mapping[str, Any]] = {}
    waiting = [(schema, where)]
    while waiting:
        part, place = waiting.pop()
        if isinstance(part, bool) or id(part) in parts:
            continue
        if not isinstance(part, Mapping):
            raise InvalidInput(f"{place} is a mapping, not {type(part).__name__}")
        parts[id(part)] = part
        _types(part.get("type"), place)
        required = part.get("required", [])
        if isinstance(required, str) or not isinstance(required, Sequence):
            raise InvalidInput(f"{place}.required is a list of names")
        waiting += reversed(list(_below(part, place)))
        if _own(part):
            waiting.append((_target(schema, part["$ref"], place), f"{place}.$ref"))
    if isinstance(schema, Mapping) and not _ends(schema, list(parts.values())):
        raise InvalidInput(f"{where} holds no value that ends: what it asks for asks for itself")


def _below(schema: Mapping[str, Any], where: str) -> Iterator[tuple[object, str]]:
    for name in _BRANCHES:
        for position, branch in enumerate(_list(schema, name, where)):
            yield branch, f"{where}.{name}[{position}]"
    for name in _NAMED:
        for key, part in _table(schema, name, where).items():
            yield part, f"{where}.{name}.{key}"
    for name in _SINGLE:
        if name in schema and not isinstance(schema[name], list):
            yield schema[name], f"{where}.{name}"


def _own(schema: Mapping[str, Any]) -> bool:
    """Whether it stands for a place in its own document."""
    ref = schema.get("$ref")
    return isinstance(ref, str) and (ref == "#" or ref.startswith("#/"))


def _target(root: Any, ref: str, where: str = "schema") -> Any:
    """What a reference stands for."""
    found = root
    try:
        for step in unquote(ref).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found[name]
    except (KeyError, IndexError, ValueError, TypeError):
        raise InvalidInput(f"{where}.$ref leads nowhere: {ref[:80]!r}") from None
    return found


def _ends(root: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether some value of finite length keeps it: as many rounds as nobody's schema needs."""
    known: set[int] = set()
    for _ in range(_ROUNDS):
        before = len(known)
        known.update(id(part) for part in reversed(parts) if _may_end(part, root, known))
        if id(root) in known or len(known) == before:
            return id(root) in known
    return True


def _may_end(part: Mapping[str, Any], root: Mapping[str, Any], known: set[int]) -> bool:
    def ends(one: Any) -> bool:
        return not isinstance(one, Mapping) or id(one) in known

    needed = [*part.get("allOf", ()), *([_target(root, part["$ref"])] if _own(part) else [])]
    if part.get("type") == "object":
        properties = part.get("properties", {})
        needed += [properties[name] for name in map(str, part.get("required", ())) if name in properties]
    least = part.get("minItems", 0)
    if part.get("type") == "array" and isinstance(least, int) and least > 0:
        needed += list(part.get("prefixItems", ()))[:least] or [part.get("items")]
    either = [part[name] for name in ("anyOf", "oneOf") if part.get(name)]
    return all(map(ends, needed)) and all(any(map(ends, some)) for some in either)


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


def is_of(value: object, kind: str) -> bool:
    """Whether a value is of a JSON type: 7.0 is an integer, and True is no number."""
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind]) and (
        kind != "integer" or not isinstance(value, float) or value.is_integer()
    )


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
        return None if {text, text.strip()} & {*request.choices} else "is none of the choices"
    if request.regex is not None:
        return None if _matches(request.regex, text) else "does not match the regex"
    return None if request.schema is None else _schema_reason(request.schema, text)


def _matches(pattern: str, text: str) -> bool:
    """Within bounded time, as the expression may be a stranger's; what cannot be judged matches."""
    budget = Budget()
    fits = matcher(f"(?:{pattern})$", budget)
    return fits is None or fits(text.strip()) or fits(text) or budget.left <= 0


def _schema_reason(schema: Mapping[str, Any], text: str) -> str | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "is not JSON although a schema was asked for"
    if isinstance(schema, OfModel):
        return _model_reason(schema.model, value)
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _TYPES and not is_of(value, kind):
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
