"""Reading calls of tools from a place of a text on, however their arguments are written."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

from memserve.protocol import ToolCall

if TYPE_CHECKING:
    from memserve.tokens.calling import Calling

_NAME = re.compile(r"[\w.\-/]+")
_INDEX = re.compile(r":\d+")
_ARGUMENTS = ("arguments", "parameters")
"""What models call them, whatever their template does."""


class Reader:
    """Reads calls from a place of a text on."""

    def __init__(self, text: str, at: int, calling: Calling, count: int) -> None:
        self._text, self.at, self._calling, self._count = text, at, calling, count
        self._family = calling.family

    def calls(self) -> Iterator[ToolCall]:
        """Calls until something else comes; `at` is behind the last whole one."""
        first, last = self._family.section
        if not self._take(first):
            return
        end = self.at
        while several := self._call():
            yield from several
            self._count += len(several)
            end = self.at
            self._take(self._family.between)
        self.at = end
        self._take(last)

    def _take(self, mark: str) -> bool:
        """Go behind a mark, however it is spaced."""
        found = _loose(mark).match(self._text, self.at)
        if found:
            self.at = found.end()
        return found is not None

    def _any(self, marks: Sequence[str]) -> bool:
        return any(self._take(mark) for mark in marks)

    def _call(self) -> list[ToolCall]:
        """One call, or several in a list; none where they break off."""
        family, tools = self._family, self._calling.tools
        if family.ignored:
            self._take(family.ignored)
        if not self._any(family.before):
            return []
        found = self._objects() if family.keys else self._named()
        if not found or not (self._any(family.after) or self._cut_off()):
            return []
        if family.start and family.checked and any(name not in tools for name, _, _ in found):
            return []
        told = [(name, json.dumps(arguments, ensure_ascii=False), own) for name, arguments, own in found]
        return [ToolCall(own or self._id(number, name, text), name, text)
                for number, (name, text, own) in enumerate(told, self._count)]  # fmt: skip

    def _cut_off(self) -> bool:
        """Whether nothing is left but a beginning of what closes a call, whose arguments are whole."""
        rest, whole = self._text[self.at :].strip(), not self._family.pair
        closes = any(mark.strip().startswith(rest) for mark in self._family.after if rest or whole)
        self.at = len(self._text) if closes else self.at
        return closes

    def _id(self, number: int, name: str, arguments: str) -> str:
        """Nine letters and digits, as Mistral's templates ask for."""
        words = f"{self._calling.salt}/{number}/{name}/{arguments}"
        return sha256(words.encode("utf-8", "replace")).hexdigest()[:9]

    def _objects(self) -> list[tuple[str, Any, str]]:
        value = self._json()
        found = [self._object(one) for one in (value if isinstance(value, list) else [value])]
        return [one for one in found if one is not None] if None not in found else []

    def _object(self, value: Any) -> tuple[str, Any, str] | None:
        name, *keys = self._family.keys
        if not isinstance(value, dict) or not isinstance(value.get(name), str):
            return None
        own = value["id"] if isinstance(value.get("id"), str) else ""
        arguments = next((value[key] for key in (*keys, *_ARGUMENTS) if key in value), None)
        if isinstance(arguments, str):
            arguments = loads(arguments or "{}", otherwise=False)
        arguments = {} if arguments is None else arguments
        return (value[name], arguments, own) if isinstance(arguments, dict) else None

    def _named(self) -> list[tuple[str, Any, str]]:
        found = _NAME.match(self._text, self.at)
        if found is None:
            return []
        name, own, self.at = found[0], "", found.end()
        number = _INDEX.match(self._text, self.at)
        if self._family.id and number:
            own, self.at = f"{self._family.id}{name}{number[0]}", number.end()
        if self._family.named and self._take(self._family.named):
            told = _NAME.match(self._text, self.at)
            own, self.at = (told[0], told.end()) if told else ("", self.at)
        if not self._any(self._family.middle):
            return []
        arguments = self._arguments(name)
        return [(name, arguments, own)] if isinstance(arguments, dict) else []

    def _arguments(self, name: str) -> Any:
        family, found = self._family, None
        if family.pair:
            known = self._calling.tools.get(name, {}).get("properties") or {}
            found = pairs(self._text, self.at, family.pair, known)
        elif family.style == "python":
            found = python(self._text, self.at)
        elif family.quote:
            found = bare(self._text, self.at, family.quote, family.after[0])
        else:
            return self._json()
        if found is None:
            return None
        value, self.at = found
        return value

    def _json(self) -> Any:
        """The JSON value from here on; None where there is none."""
        self._take("")  # white space
        try:
            value, self.at = json.JSONDecoder(strict=False).raw_decode(self._text, self.at)
        except (ValueError, RecursionError):
            return None
        return value


@cache
def _loose(mark: str) -> re.Pattern[str]:
    """A mark with any white space where it has some, and at a list's brackets."""
    parts = re.sub(r"(?<=[\]>|])(?=[\[<])", " ", mark).split()
    return re.compile(r"\s*" + r"\s*".join(map(re.escape, parts)))


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
        words = f"f({text[at : end.start()]})"
        try:
            call = ast.parse(words, mode="eval").body
            if not isinstance(call, ast.Call) or call.args:
                return None
            made = {word.arg or "": ast.literal_eval(_Named().visit(word.value)) for word in call.keywords}
            return _said(made), end.start()
        except SyntaxError as error:
            inner = error.lineno == 1 and (error.offset or len(words)) < len(words)
            if inner and not re.search("unterminated|never closed", error.msg):
                return None  # whatever comes behind it
        except (ValueError, RecursionError, MemoryError):
            continue
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
        return _said(json.loads(text.strip(), strict=False))
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        return _said(ast.literal_eval(text.strip()))
    return otherwise


def _said(value: Any) -> Any:
    """A value that JSON can say, as arguments are told: no complex number, bytes, set, or endless one."""
    try:
        json.dumps(value, allow_nan=False)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return value
