"""Thoughts of models that think before they answer: how a checkpoint marks them, and cutting them out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from memserve import files

if TYPE_CHECKING:
    Render = Callable[[Mapping[str, Any]], str | None]
    """A plain conversation as the template writes it with some variables set; None where it refuses them."""


@dataclass(frozen=True)
class Family:
    """The tags of one family: a row of thinking.json."""

    name: str
    open: str
    closes: tuple[str, ...]
    closing: str = ""
    """What ends a thought that used up its budget, where it is more than the tag on a line of its own."""
    brackets: tuple[tuple[str, str], ...] = ()
    """What may stand round an answer."""
    joints: tuple[str, ...] = ()
    """What lies between two messages of one thought."""
    heads: tuple[str, ...] = ()
    """What an answer without a thought begins with."""
    found_by: tuple[str, ...] = ()
    """What of it stands in a template, if not the tags."""
    parts: bool = False
    """An earlier thought is a part of its message's content, where the template knows such."""
    tagged: bool = True
    """No plain text begins as its thoughts do."""
    source: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        """Every mark, for tokenizers that take some of them as special."""
        return (self.open, *self.closes, *self.joints, *self.heads, *sum(self.brackets, ()))

    @property
    def begins(self) -> tuple[str, ...]:
        """Marks that an answer may begin with, with a thought or without."""
        return (self.open, *self.heads, *(first for first, _ in self.brackets if first))


@dataclass(frozen=True)
class Thinking:
    """How one checkpoint thinks."""

    family: Family
    switch: str | None = None
    """The template's variable; None: the model thinks whatever is asked."""
    on: Any = True
    off: Any = False
    default: bool = True
    kept: Mapping[int, str] = field(default_factory=dict)
    """Tokens of the tags that decoding leaves out as special, with their text."""

    @property
    def closing(self) -> str:
        """What is written to end a thought that used up its budget."""
        return self.family.closing or f"\n{self.family.closes[0]}\n\n"

    @property
    def modes(self) -> frozenset[str]:
        """What can be asked for: "on", "off", "budget"."""
        return frozenset({"on", "budget"} if self.switch is None else {"on", "off", "budget"})

    def variables(self, wanted: bool | int | None) -> dict[str, Any]:
        """The template's variables for a request's `thinking`."""
        if wanted is None or self.switch is None:
            return {}
        return {self.switch: self.on if wanted else self.off}

    def thinks(self, variables: Mapping[str, Any]) -> bool:
        """Whether an answer may begin with a thought, once the template was written with these variables."""
        if self.switch is None or self.switch not in variables:
            return self.default
        return bool(variables[self.switch] != self.off)

    def opened(self, prompt: str) -> bool:
        """Whether a rendered prompt ends inside a thought: the template wrote the opening tag itself."""
        return prompt.rstrip().endswith(self.family.open)


@cache
def families() -> tuple[Family, ...]:
    """Every row, in the order in which they are tried."""
    rows = files.table(__file__, "data/thinking.json")["families"]
    lists = ("closes", "found_by", "brackets", "joints", "heads")
    return tuple(Family(**{**row, **{name: _tuple(row.get(name, ())) for name in lists}}) for row in rows)


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, (list, tuple)) else value


def find(template: str, render: Render, tokenizer: Any) -> Thinking | None:
    """How the checkpoint with this template thinks; None: it does not."""
    family = next((one for one in families() if _fits(one, template)), None)
    if family is None:
        return None
    family = replace(family, parts=family.parts and "'thinking'" in template)
    marks = kept(family.marks, tokenizer)
    plain = render({})
    for row in files.table(__file__, "data/thinking.json")["switches"]:
        name = row["variable"]
        if name not in template:
            continue
        on, off = render({name: row["on"]}), render({name: row["off"]})
        if on is not None and off is not None and on != off:
            return Thinking(family, name, row["on"], row["off"], plain != off, marks)
    return Thinking(family, kept=marks)


def _fits(family: Family, template: str) -> bool:
    if family.found_by:
        return all(mark in template for mark in family.found_by)
    return any(mark in template for mark in (family.open, *family.closes))


def history(message: Mapping[str, Any], content: Any, how: Callable[[], Thinking | None]) -> dict[str, Any]:
    """An earlier thought under each name that templates know it by; the template keeps or drops it."""
    names = ("reasoning_content", "reasoning", "thinking")
    told = next((message[name] for name in names if isinstance(message.get(name), str)), None)
    if not told or message.get("role") != "assistant":
        return {}
    found, thinks = dict[str, Any].fromkeys(names, told), how()
    if thinks and thinks.family.parts and not isinstance(content, list):
        text = [{"type": "text", "text": content}] if content else []
        found["content"] = [{"type": "thinking", "thinking": told}, *text]
    return found


def kept(words: Sequence[str], tokenizer: Any) -> dict[int, str]:
    """Tokens of some marks that decoding leaves out as special, with their text."""
    ids = {token for word in words for token in tokenizer.encode(word, add_special_tokens=False)}
    hidden = (token for token in ids if not tokenizer.decode([token], skip_special_tokens=True))
    return {token: tokenizer.decode([token], skip_special_tokens=False) for token in hidden}


class ThoughtSplitter:
    """Cuts one answer into thought and answer while it arrives, at whatever place the pieces break.

    `marks` are what calls of tools begin with: a thought that nothing closes ends at the first from which
    `calls` reads some.
    """

    def __init__(self, family: Family, *, inside: bool, marks: Sequence[str] = (),
                 calls: Callable[[str], object] = bool) -> None:  # fmt: skip
        self._family, self._marks, self._calls = family, marks, calls
        self._state = "thought" if inside else "start"
        self._rest = ""
        """What may still be white space at an edge, or the beginning of a tag."""
        self._begun = False
        self._thought_begun = inside
        self._end = ""
        """What closes the answer."""
        self._closes = tuple(mark for mark in family.closes if not mark.endswith("="))
        self._turns = (*family.joints, *self._closes) if family.joints else ()
        """What goes on with another message of the answer, or of the thought."""
        self._spoken, self._parted = set[str](), set[str]()
        """What of thought and answer was said, and what of it goes on in another message: on a new line."""

    @property
    def answering(self) -> bool:
        """Whether the thought is over, or there was none."""
        return self._state not in ("start", "thought")

    @property
    def thinking(self) -> bool:
        """Whether a thought is being written."""
        return self._state == "thought"

    @property
    def thought(self) -> bool:
        """Whether a thought was begun, be it without words."""
        return self._thought_begun

    def push(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """New thought and new answer; the last piece gives out what was held back."""
        self._rest += piece
        thought = answer = ""
        while True:
            before = self._state
            if before == "start":
                self._start(last=last)
            elif before == "thought":
                thought += self._joined("thought", self._thought(last=last))
            elif before == "gap":
                self._gap(last=last)
            else:
                answer += self._joined("answer", self._answer(last=last))
            if self._state == before:
                return thought, answer
            if before == "answer":
                self._parted = set(self._spoken)

    def _start(self, *, last: bool) -> None:
        text, family = self._rest.lstrip(), self._family
        head = next((mark for mark in family.heads if text.startswith(mark)), None)
        if text.startswith(family.open):
            self._rest, self._state, self._thought_begun = text[len(family.open) :], "thought", True
        elif text.startswith(family.begins):
            self._rest, self._state = text[len(head or "") :], "gap"
        elif last or not any(mark.startswith(text) for mark in family.begins):
            self._state = "answer"

    def _joined(self, kind: str, words: str) -> str:
        if not words:
            return ""
        between = "\n" if kind in self._parted else ""
        self._parted.discard(kind)
        self._spoken.add(kind)
        return between + words

    def _thought(self, *, last: bool) -> str:
        family, text = self._family, self._rest
        if not self._begun:  # a model may write the tag that its template has written
            text = _without(text, (family.open, *family.joints))
        at, close = _first(text, family.closes)
        words, rest = text[:at], text[at + len(close) :]
        for joint in family.joints:
            words = words.replace(joint, "\n")
        if close:
            told = close if close.endswith("=") and "answer" in self._spoken else ""
            self._rest, self._state = told + rest, "gap"
            return words.rstrip()
        call, _ = _first(words, self._marks)
        if last and words[call:] and self._calls(words[call:]):
            self._rest, self._state = words[call:], "gap"
            return words[:call].rstrip()
        awaited = (*family.closes, *family.joints, *self._marks, *(() if self._begun else (family.open,)))
        held = 0 if last else max(len(words) - call, beginning(words, awaited))
        kept = words[: len(words) - held].rstrip()
        self._rest, self._begun = words[len(kept) :], self._begun or bool(kept)
        return kept

    def _gap(self, *, last: bool) -> None:
        self._rest = _without(self._rest, self._closes)  # a model says it, too, whose thought was ended
        if not last and any(close.startswith(self._rest) for close in self._closes):
            return
        for first, end in () if self._end else self._family.brackets:
            if self._rest and self._rest.startswith(first):
                self._rest, self._end = self._rest[len(first) :].lstrip(), end
                break
            if not last and first.startswith(self._rest):
                return
        if self._rest:
            self._state = "answer"

    def _answer(self, *, last: bool) -> str:
        text, self._rest = self._rest, ""
        if self._state == "over":
            return ""
        ends = (self._end,) if self._end else self._turns
        if not ends:
            return text
        at, mark = _first(text, ends)
        if mark:
            self._rest = text[at + len(mark) :]
            self._state = "over" if self._end else "thought" if mark in self._family.joints else "gap"
            self._begun, self._thought_begun = False, self._thought_begun or self._state == "thought"
            return text[:at].rstrip()
        held = 0 if last else beginning(text, ends)
        kept = text[: len(text) - held]
        kept = kept if last and not self._end else kept.rstrip()
        self._rest = "" if last else text[len(kept) :]
        return kept


def _without(text: str, marks: Sequence[str]) -> str:
    """Text without the marks that it begins with."""
    text = text.lstrip()
    while mark := next(filter(text.startswith, marks), ""):
        text = text[len(mark) :].lstrip()
    return text


def _first(text: str, marks: Sequence[str]) -> tuple[int, str]:
    """Where the first of some marks stands, the longest of those that begin there; the end, and none."""
    hits = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark)) >= 0]
    at, _, mark = min(hits, default=(len(text), 0, ""))
    return at, mark


def beginning(text: str, marks: Sequence[str]) -> int:
    """Length of the longest ending of a text with which one of the marks could begin."""
    longest = min(max((len(mark) for mark in marks), default=1) - 1, len(text))
    for length in range(longest, 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0


@dataclass(frozen=True)
class Named:
    """How a model thinks, as far as its name tells: a row of thinking.json's `models`."""

    families: tuple[Family, ...]
    """Whose tags its text may begin with; of an unknown model any that no plain text begins with."""
    modes: frozenset[str] = frozenset({"on", "off", "budget"})
    switches: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """The template's variables, with what they are when on and off; a template ignores others' names."""
    opened: str = ""
    """When the template writes the opening tag: "always", "unless off", or "asked" for."""

    def inside(self, wanted: bool | int | None) -> bool:
        """Whether a text begins inside the thought, for a request's `thinking`."""
        if self.opened == "unless off":
            return wanted is None or bool(wanted)
        return self.opened == "always" or (self.opened == "asked" and bool(wanted))

    def variables(self, wanted: bool | int | None) -> dict[str, Any]:
        """What the template is given for a request's `thinking`."""
        if wanted is None:
            return {}
        return {name: on if wanted else off for name, (on, off) in self.switches.items()}


@cache
def named(model: str) -> Named:
    """What a model's name tells."""
    table = files.table(__file__, "data/thinking.json")
    known = {one.name: one for one in families()}
    row = next((row for row in table["models"] if re.search(row["pattern"], model, re.IGNORECASE)), None)
    spelled = {one["variable"]: (one["on"], one["off"]) for one in table["switches"]}
    if row is None:
        tagged = tuple(one for one in families() if one.tagged)
        booleans = {name: pair for name, pair in spelled.items() if pair == (True, False)}
        return Named(tagged, switches=booleans)
    own = (known[row["family"]],) if "family" in row else ()
    switches = {name: spelled[name] for name in row.get("switches", ())}
    return Named(own, frozenset(row["modes"]), switches, row.get("opened", ""))


class Unparsed:
    """Cuts the thought out of one answer's text while it arrives."""

    def __init__(self, known: Named, wanted: bool | int | None = None) -> None:
        self._known, self._inside = known, known.inside(wanted)
        self._splitter: ThoughtSplitter | None = None
        self._plain = not known.families
        self._said = ""

    def push(self, piece: str, *, last: bool = False, cut_off: bool = False) -> tuple[str, str]:
        """New thought and new answer; a thought that never ends without being cut off is text."""
        self._said += piece
        if self._splitter is None and not self._plain:
            piece = self._begin(last=last)
        if self._plain:
            return "", piece
        if self._splitter is None:
            return "", ""
        thought, answer = self._splitter.push(piece, last=last)
        return thought, self._said if last and not cut_off and self._splitter.thinking else answer

    @property
    def unclosed(self) -> bool:
        """Whether a thought was begun and did not end."""
        return self._splitter is not None and self._splitter.thinking

    def _begin(self, *, last: bool) -> str:
        """The text so far, once it tells how it is to be read."""
        text, own = self._said.lstrip(), self._known.families
        family = next((one for one in own if text.startswith(one.begins)), None)
        if family is None and not last and any(mark.startswith(text) for one in own for mark in one.begins):
            return ""
        if family is not None or self._inside:
            self._splitter = ThoughtSplitter(family or own[0], inside=family is None)
        else:
            self._plain = True
        return self._said
