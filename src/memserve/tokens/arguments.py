"""Arguments of calls, as families write them that do not write JSON: one by one, as Python, bare."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

_NAMES = {"true": True, "false": False, "null": None}
_KINDS: dict[type, str] = {
    bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null",
}  # fmt: skip
_KEY = re.compile(r"([{,]\s*)([^\s{}\[\],:\"]+)\s*:")
_TRIES = 1000
"""Closing brackets that may stand in the strings of a call."""


def kinds_of(schema: Any) -> set[str]:
    """The types that a schema allows at its top."""
    if not isinstance(schema, Mapping):
        return {"string"}
    kind = schema.get("type")
    own: set[str] = {kind} if isinstance(kind, str) else set(kind or ())
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        own |= kinds_of(branch)
    if not own and "enum" in schema:
        own = {_KINDS.get(type(value), "string") for value in schema["enum"]}
    return own or {"json"}


def pairs(text: str, at: int, pair: str, known: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Arguments that are written one by one; strings stand as they are, all else as JSON."""
    pattern, found = re.compile(r"\s*" + pair, re.DOTALL), dict[str, Any]()
    while (one := pattern.match(text, at)) is not None:
        key, at = one["key"].strip(), one.end()
        said = one.groupdict().get("string")
        kinds = {"true": {"string"}, "false": {"json"}}.get(said or "", kinds_of(known.get(key)))
        found[key] = _value(one["value"], kinds)
    return found, at


def python(text: str, at: int) -> tuple[dict[str, Any], int] | None:
    """Keywords as Python writes a call's, from behind its bracket; None where they are none."""
    for end in islice(re.compile(r"\)").finditer(text, at), _TRIES):
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            call = ast.parse(f"f({text[at : end.start()]})", mode="eval").body
            if not isinstance(call, ast.Call) or call.args:
                return None
            made = {word.arg or "": ast.literal_eval(_Named().visit(word.value)) for word in call.keywords}
            return made, end.start()
    return None


class _Named(ast.NodeTransformer):
    """JSON's names for values, which models mix in."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_NAMES[node.id]) if node.id in _NAMES else node


def bare(text: str, at: int, quote: str, close: str) -> tuple[Any, int]:
    """JSON with a family's own quotes round strings and none round keys, up to what closes the call."""
    made, place = "", at
    for number, part in enumerate(re.split(re.escape(quote), text[at:])):
        if number % 2:
            made, place = made + json.dumps(part), place + len(part) + 2 * len(quote)
            continue
        end = part.find(close)
        own = part if end < 0 else part[:end]
        made, place = made + _KEY.sub(r'\1"\2":', own), place + len(own)
        if end >= 0:
            break
    return loads(made), min(place, len(text))


def _value(text: str, kinds: set[str]) -> Any:
    """Of a type that the schema allows: a string where nothing else is meant."""
    value = text if kinds == {"string"} else loads(text, text)
    kind = _KINDS.get(type(value))
    allowed = {kind, "number"} if kind == "integer" else {kind}
    return value if not kinds & {"string"} or kinds & allowed else text


def loads(text: str, otherwise: Any = None) -> Any:
    """JSON, or what Python prints for a value: some templates write that."""
    with suppress(ValueError, RecursionError):
        return json.loads(text.strip(), strict=False)
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        return ast.literal_eval(text.strip())
    return otherwise
