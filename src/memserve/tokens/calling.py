"""Calls of tools that models ask for: how families write them, reading them out of text."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import sha256
from typing import Any

from memserve import files
from memserve.errors import InvalidInput
from memserve.protocol import Request, ToolCall
from memserve.tokens import arguments as written
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
"""A tool that templates are tried with, and a call of it."""


def probed(begin: str = "") -> tuple[Mapping[str, Any], ...]:
    """A conversation with that call, its id as templates ask for."""
    own = f"{begin}{PROBE_CALL['name']}:0" if begin else "memserve1"
    calls = [{"id": own, "type": "function", "function": PROBE_CALL}]
    asked = {"role": "user", "content": "Call."}
    return asked, {"role": "assistant", "content": "", "tool_calls": calls}


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
    inside: tuple[str, ...] = ()
    ignored: str = ""
    id: str = ""
    named: str = ""
    quote: str = ""

    @property
    def checked(self) -> bool:
        """Whether what stands there may as well be text."""
        return bool(self.keys) or self.style == "python"

    @property
    def held(self) -> bool:
        """Whether a grammar can hold arguments that are written so."""
        return self.style not in ("free", "python")

    @cached_property
    def triggers(self) -> tuple[str, ...]:
        """What text gives way to calls at; with `start` it means so at the beginning alone."""
        marks = (self.section[0],) if self.section[0] else self.before
        first = [(mark.split() or ["{"])[0].removesuffix("[") for mark in marks]
        return tuple(dict.fromkeys([*first, *filter(None, [self.ignored])]))

    def reads(self, text: str) -> bool:
        """Whether `probed`, as a template wrote it, is read back; True where the call was left out."""
        said = PROBE_CALL["arguments"]
        if self.start or said["said"] not in text:
            return True
        calling = Calling(self, {PROBE_CALL["name"]: PROBE["function"]["parameters"]})
        places = (found.start() for mark in self.triggers for found in re.finditer(re.escape(mark), text))
        calls = (call for place in places for call in _Reader(text, place, calling, 0).calls())
        return any(json.loads(call.arguments) == said for call in calls)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every mark, for tokenizers that take some of them as special."""
        return tuple(filter(None, (*self.section, *self.before, *self.middle, *self.after, self.ignored)))


@cache
def families() -> tuple[Family, ...]:
    """Every row, in the order in which they are tried."""
    rows = files.table(__file__, "data/tools.json")["families"]
    lists = ("found_by", "section", "before", "middle", "after", "keys", "inside")
    return tuple(
        Family(**{**row, **{name: tuple(row[name]) for name in lists if name in row}}) for row in rows
    )


def find(template: str, render: Callable[..., str | None]) -> Family | None:
    """The family whose marks stand in a template that writes tools, and calls so; None: none that we know."""
    if "tools" not in template or PROBE_CALL["name"] not in (render(offered([PROBE])) or ""):
        return None
    fitting = (one for one in families() if all(mark in template for mark in one.found_by))
    how = {"add_generation_prompt": False}
    return next((one for one in fitting if one.reads(render(how, probed(one.id)) or "")), None)


def as_text(probed: str) -> bool:
    """Whether a template, by what it made of `probed`, wants arguments as JSON text, unlike most."""
    return PROBE_CALL["arguments"]["said"] not in probed or str(PROBE_CALL["arguments"]) in probed


def offered(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The template's variables for tools; it reads the one that it knows."""
    told = [dict(tool) for tool in tools]
    return {"tools": told, "xml_tools": told}


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
            self._begun, marks = True, self._family.inside
        places = [at for mark in marks if (at := text.find(mark)) >= 0]
        self._holding = bool(places)
        end = min(places) if places else len(text) - (0 if last else beginning(text, marks))
        if not (last and not places):
            end = len(text[:end].rstrip())  # white space before a call belongs to it
        passed, self._rest = text[:end], text[end:]
        return passed


def read(text: str, calling: Calling) -> tuple[str, tuple[ToolCall, ...]]:
    """The text of a whole answer without its calls, and the calls; what is broken stays text."""
    family, said, calls, after = calling.family, "", list[ToolCall](), 0
    while (place := _place(text, after, family, begun=bool(said or calls))) is not None:
        reader = _Reader(text, place, calling, len(calls))
        found = list(reader.calls())
        if found and not (family.start and text[reader.at :].strip()):
            said, text, after = said + text[:place].rstrip(), text[reader.at :], 0
            calls += found
            continue
        if not after:
            log.warning("what begins like a call of a tool is none, and stays text: %.80r", text[place:])
        after = place + 1
    return said + (text if text.strip() or not calls else ""), tuple(calls)


def _place(text: str, after: int, family: Family, *, begun: bool) -> int | None:
    """Where the next call may begin."""
    marks = family.triggers
    if family.start and (begun or after or not text.lstrip().startswith(marks)):
        marks = family.inside
    return min((at for mark in marks if (at := text.find(mark, after)) >= 0), default=None)


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
        if self._family.start and self._family.checked and name not in self._calling.tools:
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
            arguments = written.loads(arguments)
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
        if self._family.named and self._take(self._family.named):
            told = _NAME.match(self._text, self.at)
            own, self.at = (told[0], told.end()) if told else ("", self.at)
        if not self._any(self._family.middle):
            return None
        arguments = self._arguments(name)
        return (name, arguments, own) if isinstance(arguments, dict) else None

    def _arguments(self, name: str) -> Any:
        family, found = self._family, None
        if family.pair:
            known = self._calling.tools.get(name, _OBJECT).get("properties") or {}
            found = written.pairs(self._text, self.at, family.pair, known)
        elif family.style == "python":
            found = written.python(self._text, self.at)
        elif family.quote:
            found = written.bare(self._text, self.at, family.quote, family.after[0])
        else:
            return self._json()
        if found is None:
            return None
        value, self.at = found
        return value

    def _json(self) -> Any:
        """The JSON value from here on; None where there is none."""
        start = re.compile(r"\s*").match(self._text, self.at)
        try:
            value, self.at = json.JSONDecoder().raw_decode(self._text, start.end() if start else self.at)
        except (ValueError, RecursionError):
            return None
        return value


@cache
def _loose(mark: str) -> re.Pattern[str]:
    """A mark with any white space where it has some, and at a list's brackets."""
    parts = re.sub(r"(?<=[\]>|])(?=[\[<])", " ", mark).split()
    return re.compile(r"\s*" + r"\s*".join(map(re.escape, parts)))
