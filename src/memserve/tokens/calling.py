"""Calls of tools that models ask for: how families write them, reading them out of text."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from memserve import files
from memserve.errors import InvalidInput
from memserve.protocol import Request, ToolCall
from memserve.tokens.reader import Reader
from memserve.tokens.thinking import beginning

log = logging.getLogger("memserve")
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
    also: str = ""

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
        marks = sum(((one.section[0],) if one.section[0] else one.before for one in self.spellings), ())
        first = [(mark.split() or ["{"])[0].removesuffix("[") or "[" for mark in marks]
        return tuple(dict.fromkeys([*first, *filter(None, [self.ignored])]))

    def reads(self, text: str) -> bool:
        """Whether `probed`, as a template wrote it, is read back; True where the call was left out."""
        said = PROBE_CALL["arguments"]
        if self.start or said["said"] not in text:
            return True
        calling = Calling(self, {PROBE_CALL["name"]: PROBE["function"]["parameters"]})
        places = (found.start() for mark in self.triggers for found in re.finditer(re.escape(mark), text))
        calls = (call for place in places for call in Reader(text, place, calling, 0).calls())
        return any(json.loads(call.arguments) == said for call in calls)

    @cached_property
    def spellings(self) -> tuple[Family, ...]:
        """This family, and another whose calls its models write as well."""
        return (self, *(one for one in families() if one.name == self.also))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every mark, for tokenizers that take some of them as special."""
        marks = ((*one.section, *one.before, *one.middle, *one.after, one.ignored) for one in self.spellings)
        return tuple(filter(None, sum(marks, ())))


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
    return next((one for one in fitting if one.reads(render(WRITTEN, probed(one.id)) or "")), None)


def as_text(probed: str) -> bool:
    """Whether a template, by what it made of `probed`, wants arguments as JSON text, unlike most."""
    return PROBE_CALL["arguments"]["said"] not in probed or str(PROBE_CALL["arguments"]) in probed


def offered(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The template's variables for tools; it reads the one that it knows."""
    told = [_whole(tool) for tool in tools]
    return {"tools": told, "xml_tools": told}


def _whole(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A function that takes nothing says so: some templates read what may be left out."""
    function = tool.get("function")
    if not function or function.get("parameters") is not None:
        return dict(tool)
    return {**tool, "function": {**function, "parameters": {"type": "object", "properties": {}}}}


WRITTEN = {"add_generation_prompt": False, **offered([PROBE])}
"""How `probed` is written."""


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

    @property
    def marks(self) -> tuple[str, ...]:
        """What calls begin with that a thought may give way to."""
        return () if self.family.start else self.family.triggers

    def read(self, text: str) -> tuple[ToolCall, ...]:
        """The calls in a text."""
        return read(text, self)[1]


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
    family, said, space, after = calling.family, "", "", 0
    calls = list[ToolCall]()
    while (place := _place(text, after, family, begun=bool(said or calls))) is not None:
        found, end = _calls(text, place, calling, len(calls))
        if found and not (family.start and text[end:].strip()):
            head, rest = text[:place], text[end:]
            said = _told(said, space, head) if calls else head.rstrip()
            space = head[len(head.rstrip()) :] or rest[: len(rest) - len(rest.lstrip())]
            calls, text, after = [*calls, *found], rest, 0
            continue
        if not after:
            log.warning("what begins like a call of a tool is none, and stays text: %.80r", text[place:])
        after = place + 1
    return _told(said, space, text) if calls else text, tuple(calls)


def _told(said: str, space: str, more: str) -> str:
    """Text with what comes behind a call."""
    return said + space + more.lstrip() if more.strip() else said


def _calls(text: str, at: int, calling: Calling, count: int) -> tuple[list[ToolCall], int]:
    """The calls that begin there, in whichever spelling, and where they end."""
    end = at
    for family in calling.family.spellings:
        reader = Reader(text, at, replace(calling, family=family), count)
        if found := list(reader.calls()):
            return found, reader.at
        end = reader.at
    return [], end


def _place(text: str, after: int, family: Family, *, begun: bool) -> int | None:
    """Where the next call may begin."""
    marks = family.triggers
    if family.start and (begun or after or not text.lstrip().startswith(marks)):
        marks = family.inside
    return min((at for mark in marks if (at := text.find(mark, after)) >= 0), default=None)
