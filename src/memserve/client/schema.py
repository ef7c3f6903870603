"""Checks a JSON schema before any work: engines answer a broken one with an error, or with free text."""

from collections.abc import Mapping, Sequence
from typing import Any

from memserve.errors import InvalidInput

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
