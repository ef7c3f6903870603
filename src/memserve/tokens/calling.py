"""Calls of tools that models ask for: how families write them, reading them out of text."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import sha256
from typing import Any

from memserve import files
from memserve.errors import InvalidInput
from memserve.protocol import Request, ToolCall
from memserve.tokens.thinking import beginning

log = logging.getLogger("memserve")
_NAME = re.compile(r"[\w.\-/]+")
_INDEX = re.compile(r":\d+")
_OBJECT: dict[str, Any] = {"type": "object"}
PROBE_CALL: dict[str, Any] = {"name": "memserve_probe", "arguments": {"said": "memserve proves calls"}}
PROBE: dict[str, Any] = {"type": "function", "function": {
    "name": "memserve_probe", "description": "Says something.",
    "parameters": {"type": "object", "properties": {"said": {"type": "string", "description": "What."}},
                   "required": ["said"]},
}}  # fmt: skip
PROBED: tuple[Mapping[str, Any], ...] = (
    {"role": "user", "content": "Call."},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "memserve1", "type": "function", "function": PROBE_CALL}]},
)  # fmt: skip
"""A tool that templates are tried with, and a conversation with a call of it."""


@dataclass(frozen=True)
class Family:
    """How one family writes calls: a row of tools.json."""

    name: str
    source: str
    found_by: tuple[str, ...]
    section: tuple[str, ...] = ("", "")
    before: tuple[str, ...] = ("",)
    middle: tuple[str, ...] = ("",)
    after: tuple[str, ...] = ("",)
    between: str = ""
    keys: tuple[str, ...] = ()
    style: str = "json"
    pair: str = ""
    start: bool = False
    ignored: str = ""
    id: str = ""

    @cached_property
    def triggers(self) -> tuple[str, ...]:
        """What text gives way to calls at; with `start` it means so at the beginning alone."""
        marks = (self.section[0],) if self.section[0] else self.before
        first = [(mark.split() or ["{"])[0].removesuffix("[") for mark in marks]
        return tuple(dict.fromkeys([*first, *filter(None, [self.ignored])]))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every mark, for tokenizers that take some of them as special."""
        return tuple(filter(None, (*self.section, *self.before, *self.middle, *self.after, self.ignored)))


@cache
def families() -> tuple[Family, ...]:
    """Every row, in the order in which they are tried."""
    rows = files.table(__file__, "data/tools.json")["families"]
    lists = ("found_by", "section", "before", "middle", "after", "keys")
    return tuple(
        Family(**{**row, **{name: tuple(row[name]) for name in lists if name in row}}) for row in rows
    )


def find(template: str, render: Callable[[Mapping[str, Any]], str | None]) -> Family | None:
    """The family whose marks stand in a template that writes tools, too; None: it takes none that we know."""
    fitting = (one for one in families() if all(mark in template for mark in one.found_by))
    family = next(fitting, None) if "tools" in template else None
    told = render({"tools": [PROBE]}) if family else None
    return family if told and PROBE_CALL["name"] in told else None


def as_text(probed: str) -> bool:
    """Whether a template, by what it made of `PROBED`, wants arguments as JSON text, unlike most."""
    return PROBE_CALL["arguments"]["said"] not in probed or str(PROBE_CALL["arguments"]) in probed


@dataclass(frozen=True)
class Calling:
    """The calls that may answer one request."""

    family: Family
    tools: Mapping[str, Mapping[str, Any]]
    """Schemas of the arguments, by the names of the tools that may be called."""
    forced: bool = False
    """The answer must be calls."""
    once: bool = False
    """One call, not several."""
    salt: str = ""
    """Another prompt, other ids."""
    kept: Mapping[int, str] = field(default_factory=dict)
    """Special tokens of the marks, with their text."""


def of(request: Request, family: Family, kept: Mapping[int, str]) -> Calling | None:
    """What a request's tools allow; None where no call may come."""
    choice = request.tool_choice or "auto"
    if not request.tools or choice == "none":
        return None
    tools = dict(function(tool) for tool in request.tools)
    if isinstance(choice, Mapping):
        name = str((choice.get("function") or choice).get("name"))
        return Calling(family, {name: tools[name]}, forced=True, once=True, kept=kept)
    if choice not in ("auto", "required"):
        raise InvalidInput(
            f"tool_choice is auto, none, required or {{'function': {{'name': ...}}}}, not {choice!r}"
        )
    return Calling(family, tools, forced=choice == "required", kept=kept)


def function(tool: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """A tool's name and the JSON schema of its arguments."""
    found = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(found, Mapping):
        raise InvalidInput(
            'a tool is {"type": "function", "function": {"name", "description", "parameters"}}'
        )
    name, schema = found.get("name"), found.get("parameters", _OBJECT)
    if not isinstance(name, str) or not re.fullmatch(r"[\w.\-/]{1,256}", name):
        raise InvalidInput(f"a tool's name is of letters, digits, _ and -, not {name!r}")
    if not isinstance(schema, Mapping):
        raise InvalidInput(f"the parameters of tool {name} are a JSON schema, not {type(schema).__name__}")
    return name, schema


def history(calls: Any, *, as_text: bool) -> list[dict[str, Any]]:
    """Earlier calls of a conversation as a template reads them: arguments as an object, or as JSON text."""
    if isinstance(calls, (str, Mapping)) or not isinstance(calls, Sequence):
        raise InvalidInput("tool_calls of a message are a list")
    return [_earlier(call, as_text=as_text) for call in calls]


def _earlier(call: Any, *, as_text: bool) -> dict[str, Any]:
    found = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        raise InvalidInput(
            'a call in a message is {"id", "type": "function", "function": {"name", "arguments"}}'
        )
    arguments = found.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, Mapping):
        raise InvalidInput(f"the arguments of the call of {found['name']} are not a JSON object")
    told = json.dumps(arguments, ensure_ascii=False) if as_text else dict(arguments)
    return {**call, "type": "function", "function": {**found, "arguments": told}}


class CallSplitter:
    """Cuts calls out of one answer while it arrives: text goes through, what may be calls waits."""

    def __init__(self, calling: Calling) -> None:
        self._calling = calling
        self._family = calling.family
        self._rest = ""
        self._begun = False
        self._holding = False
        self.calls: tuple[ToolCall, ...] = ()

    def push(self, piece: str, *, last: bool = False) -> str:
        """New text of the answer; the last piece reads the calls and gives out what was none."""
        self._rest += piece
        if not self._holding:
            passed = self._pass(last=last)
            if not self._holding:
                return passed
        else:
            passed = ""
        if not last:
            return passed
        text, self.calls = read(self._rest, self._calling)
        self._rest = ""
        return passed + text

    def _pass(self, *, last: bool) -> str:
        """What is text for sure."""
        marks, text = self._family.triggers, self._rest
        if self._family.start:
            bare = text.lstrip()
            if not self._begun and any(bare.startswith(mark) for mark in marks):
                self._holding = True
                return ""
            if not self._begun and not last and any(mark.startswith(bare) for mark in marks):
                return ""
            self._begun, self._rest = True, ""
            return text
        places = [at for mark in marks if (at := text.find(mark)) >= 0]
        self._holding = bool(places)
        end = min(places) if places else len(text) - (0 if last else beginning(text, marks))
        if not (last and not places):
            end = len(text[:end].rstrip())  # white space before a call belongs to it
        passed, self._rest = text[:end], text[end:]
        return passed


def read(text: str, calling: Calling) -> tuple[str, tuple[ToolCall, ...]]:
    """The text of a whole answer without its calls, and the calls; what is broken stays text."""
    family, said, calls = calling.family, "", list[ToolCall]()
    while True:
        places = [at for mark in family.triggers if (at := text.find(mark)) >= 0]
        if family.start and (calls or not text.lstrip().startswith(family.triggers)):
            places = []
        if not places:
            break
        reader = _Reader(text, min(places), calling, len(calls))
        found = list(reader.calls())
        if not found or (family.start and text[reader.at :].strip()):
            log.warning(
                "what begins like a call of a tool is none, and stays text: %.80r", text[min(places) :]
            )
            break
        said, text = said + text[: min(places)].rstrip(), text[reader.at :]
        calls += found
    return said + (text if text.strip() or not calls else ""), tuple(calls)


class _Reader:
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
        while (call := self._call()) is not None:
            yield call
            self._count += 1
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

    def _call(self) -> ToolCall | None:
        if self._family.ignored:
            self._take(self._family.ignored)
        if not self._any(self._family.before):
            return None
        found = self._object() if self._family.keys else self._named()
        if found is None or not (self._any(self._family.after) or self._cut_off()):
            return None
        name, arguments, own = found
        if self._family.start and self._family.keys and name not in self._calling.tools:
            return None
        told = json.dumps(arguments, ensure_ascii=False)
        return ToolCall(own or self._id(name, told), name, told)

    def _cut_off(self) -> bool:
        """Whether nothing is left but a beginning of what closes a call."""
        rest = self._text[self.at :].strip()
        closes = any(mark.strip().startswith(rest) for mark in self._family.after)
        self.at = len(self._text) if closes else self.at
        return closes

    def _id(self, name: str, arguments: str) -> str:
        """Nine letters and digits, as Mistral's templates ask for."""
        words = f"{self._calling.salt}/{self._count}/{name}/{arguments}"
        return sha256(words.encode("utf-8", "replace")).hexdigest()[:9]

    def _object(self) -> tuple[str, Any, str] | None:
        value = self._json()
        if not isinstance(value, dict) or not isinstance(value.get(self._family.keys[0]), str):
            return None
        arguments, own = value.get(self._family.keys[1], {}), value.get("id")
        if isinstance(arguments, str):
            arguments = _loads(arguments)
        if not isinstance(arguments, dict):
            return None
        return value[self._family.keys[0]], arguments, own if isinstance(own, str) else ""

    def _named(self) -> tuple[str, Any, str] | None:
        found = _NAME.match(self._text, self.at)
        if found is None:
            return None
        name, own, self.at = found[0], "", found.end()
        number = _INDEX.match(self._text, self.at)
        if self._family.id and number:
            own, self.at = f"{self._family.id}{name}{number[0]}", number.end()
        if not self._any(self._family.middle):
            return None
        arguments = self._pairs(name) if self._family.pair else self._json()
        return (name, arguments, own) if isinstance(arguments, dict) else None

    def _json(self) -> Any:
        """The JSON value from here on; None where there is none."""
        start = re.compile(r"\s*").match(self._text, self.at)
        try:
            value, self.at = json.JSONDecoder().raw_decode(self._text, start.end() if start else self.at)
        except (ValueError, RecursionError):
            return None
        return value

    def _pairs(self, name: str) -> dict[str, Any]:
        """Arguments that are written one by one; strings stand as they are, all else as JSON."""
        known = self._calling.tools.get(name, _OBJECT).get("properties") or {}
        pattern, found = re.compile(r"\s*" + self._family.pair, re.DOTALL), {}
        while (one := pattern.match(self._text, self.at)) is not None:
            key, self.at = one["key"].strip(), one.end()
            said = one.groupdict().get("string")
            kinds = {"true": {"string"}, "false": {"json"}}.get(said or "", kinds_of(known.get(key)))
            found[key] = _value(one["value"], kinds)
        return found


@cache
def _loose(mark: str) -> re.Pattern[str]:
    """A mark with any white space where it has some, and at a list's brackets."""
    parts = re.sub(r"(?<=[\]>|])(?=[\[<])", " ", mark).split()
    return re.compile(r"\s*" + r"\s*".join(map(re.escape, parts)))


def kinds_of(schema: Any) -> set[str]:
    """The types that a schema allows at its top."""
    if not isinstance(schema, Mapping):
        return {"string"}
    kind = schema.get("type")
    own = {kind} if isinstance(kind, str) else set(kind or ())
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        own |= kinds_of(branch)
    if not own and "enum" in schema:
        own = {"string" if isinstance(value, str) else "json" for value in schema["enum"]}
    return own or {"json"}


def _value(text: str, kinds: set[str]) -> Any:
    if kinds == {"string"} or ("string" in kinds and text.strip() != "null"):
        return text
    return _loads(text, text)


def _loads(text: str, otherwise: Any = None) -> Any:
    """JSON, or what Python prints for a value: some templates write that."""
    with suppress(ValueError, RecursionError):
        return json.loads(text.strip())
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        return ast.literal_eval(text.strip())
    return otherwise
