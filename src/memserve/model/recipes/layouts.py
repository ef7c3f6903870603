"""Encoders, encoder-decoders and towers from `data/layouts.json`: their weights by name, sizes in words.

A layout lists lines. `name dims ...` is a tensor; a dimension is a field of the config, a number, or a sum
or product of them (`image_size/patch_size`; a list's length is `#field`, its parts `field.0` and `field.1`).
    +  or +field    a bias vector, too (where the field is true)
    ~               a second name of the token table where `tie_word_embeddings` is true
    =               the name as it stands, without `.weight`
    ?field, ?!field, ?field=word|word, ?field!=word      first on a line: only where that holds; also
    ?field:part (a list or text that has the word), ?field>number, ?field<>field (differs),
    ?value@field (is in that list)
    name[count] @layout      the lines of another layout, once or `count` times (`layer` is the index)
    name >field              the layout of a nested config
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from memserve import files
from memserve.model.config import LARGEST, MOST_LAYERS, Config
from memserve.model.recipes.modules import labels

DEEPEST = 12
_COUNTED = re.compile(r"([^\[]*)\[(.+)\]")
_BRACES = re.compile(r"(.*)\{([^{]+)\}(.*)")
_CONDITION = re.compile(r"(!?)([^=!:<>@]+)(?:(!?=|:|<>|>|@)(.*))?")
_PLAIN = re.compile(r"[^+\-*/]+")
_TERM = re.compile(r"([+-]?)([^+-]+)")
_FACTOR = re.compile(r"([*/]?)([^*/]+)")


@cache
def table() -> dict[str, dict[str, Any]]:
    """All layouts by name."""
    found: dict[str, dict[str, Any]] = json.loads(files.beside(__file__, "../data/layouts.json"))["layouts"]
    return found


def known(kind: str) -> bool:
    """Whether a layout is written down for this `model_type`."""
    return kind in table()


@cache
def layout(name: str) -> dict[str, Any]:
    """One layout, with what it takes over from another."""
    row = table()[name]
    if "like" not in row:
        return row
    base = layout(row["like"])
    heads = {**base.get("heads", {}), **row.get("heads", {})}
    return {**base, **row, "heads": heads, "let": {**base.get("let", {}), **row.get("let", {})}}


class Named(NamedTuple):
    """The tensors of a model by name, and second names of the same tensors."""

    shapes: dict[str, tuple[int, ...]]
    aliases: dict[str, tuple[int, ...]]
    asked: set[str]
    """`layer`, where a line asked which one it stands in."""

    def again(self, first: str, other: str, into: Named) -> None:
        """The same tensors below another prefix, as a further layer has them."""
        for own, theirs in ((self.shapes, into.shapes), (self.aliases, into.aliases)):
            theirs.update({other + name[len(first) :]: shape for name, shape in own.items()})


def head_of(row: Mapping[str, Any], architecture: str) -> str:
    """Which of a layout's heads a class has: its own name first, then the end of the name, else the first."""
    heads: list[str] = list(row.get("heads", {})) or [""]
    fitting = [head for head in heads if head == architecture or (head and architecture.endswith(head))]
    return max(fitting, key=len, default=heads[0])


def named(config: Config, architecture: str) -> Named:
    """All tensors of the class that a config names."""
    row = layout(config.kind)
    found = Named({}, {}, set())
    head = head_of(row, architecture)
    top = row.get("heads", {}).get(head, [])
    reader = _Reader(found, config, row.get("let", {}), head)
    reader.lines(row["body"], row.get("base", "") if top else "")
    reader.lines(top, "")
    return found


def below(config: Config, prefix: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a layout without a head, below a prefix."""
    row = layout(config.kind)
    found = Named({}, {}, set())
    _Reader(found, config, row.get("let", {}), "").lines(row["body"], prefix)
    return found.shapes


def size(config: Config, expression: str) -> int:
    """A number in the words of a config."""
    return _Reader(Named({}, {}, set()), config, layout(config.kind).get("let", {}), "").size(expression)


def _alternatives(name: str) -> list[str]:
    """`a.{b,c}` as `a.b` and `a.c`."""
    parts = _BRACES.fullmatch(name)
    if parts is None:
        return [name]
    return [found for one in parts[2].split(",") for found in _alternatives(f"{parts[1]}{one}{parts[3]}")]


class _Reader:
    """Writes down the tensors of lines with the sizes of one config."""

    def __init__(self, found: Named, config: Config, let: Mapping[str, Any], head: str,
                 depth: int = 0) -> None:  # fmt: skip
        self.found, self.config, self.let, self.head, self.depth = found, config, let, head, depth
        self.layer = 0

    def lines(self, lines: list[str], prefix: str) -> None:
        """All lines of one list, below a prefix."""
        for line in lines:
            words = line.split()
            while words[0].startswith("?"):
                if not self.holds(words.pop(0)[1:]):
                    break
            else:
                self.line(words, prefix)

    def line(self, words: list[str], prefix: str) -> None:
        """One tensor, or several by braces, or a layout within this one."""
        name, *rest = words
        counted = _COUNTED.fullmatch(name)
        if counted:
            name = counted[1]
        path = ".".join(part for part in (prefix, name) if part and part != "-")
        if counted:
            self.repeat(rest[0], path, self.count(counted[2]))
            return
        for one in _alternatives(path):
            if rest[0][0] in "@>":
                self.include(rest[0], one, self.layer)
            else:
                self.tensor(one, rest)

    def repeat(self, word: str, path: str, count: int) -> None:
        """Another layout `count` times: read once where none of its lines asks for the layer."""
        own, first = Named({}, {}, set()), path
        for index in range(count):
            here = f"{path}.{index}"
            if not index or own.asked:
                own, first = Named({}, {}, own.asked), here
                self.include(word, here, index, own)
            own.again(first, here, self.found)

    def include(self, word: str, path: str, index: int, into: Named | None = None) -> None:
        """The lines of another layout, or of a nested config."""
        if self.depth >= DEEPEST:
            self.config.bad(word[1:], "is nested too deep")
        config, head, let = self.config, self.head, self.let
        if word[0] == ">":
            config, head, let = self.config.sub(word[1:]), "Model", {}
            if not known(config.kind):
                self.config.bad(word[1:], f"is of a kind that is not known: {config.kind[:40]!r}")
        row = layout(config.kind if word[0] == ">" else word[1:])
        inner = _Reader(into or self.found, config, {**row.get("let", {}), **let}, head, self.depth + 1)
        inner.layer = index
        inner.lines(row["body"], path)

    def tensor(self, name: str, words: list[str]) -> None:
        """One tensor with its bias."""
        flags = [word for word in words if word[0] in "+~="]
        shape = tuple(self.size(word) for word in words if word[0] not in "+~=")
        tied = "~" in flags and bool(self.value("tied"))
        target = self.found.aliases if tied else self.found.shapes
        target[name if "=" in flags else f"{name}.weight"] = shape
        if any(flag == "+" or (flag[0] == "+" and self.config.flag(flag[1:])) for flag in flags):
            self.found.shapes[f"{name}.bias"] = shape[:1]

    def holds(self, condition: str) -> bool:
        """Whether a condition is met."""
        parts = _CONDITION.fullmatch(condition)
        if parts is None:
            raise ValueError(f"layouts.json: no condition: {condition}")
        negated, name, relation, wanted = parts.groups()
        met = bool(COMPARED[relation](self, self.value(name), wanted))
        return met is not bool(negated)

    def count(self, expression: str) -> int:
        """How often lines are repeated."""
        found = self.size(expression)
        if found > MOST_LAYERS:
            self.config.bad(expression, f"is out of range: {found}")
        return found

    def size(self, expression: str) -> int:
        """A dimension."""
        found = self.value(expression)
        whole = isinstance(found, (int, float)) and not isinstance(found, bool)
        if not whole or not 0 <= found <= LARGEST:
            why = "is missing" if found is None else f"must be a whole number, not {str(found)[:40]}"
            self.config.bad(expression, why)
        return int(found)

    def value(self, expression: str) -> Any:
        """A sum of products, from left to right; a single name may be a word, a switch or null."""
        if _PLAIN.fullmatch(expression):
            return self.atom(expression)
        total: float = 0
        for sign, product in _TERM.findall(expression):
            term: float = 1
            for operation, name in _FACTOR.findall(product):
                term = self.calculate(term, operation, self.number(name))
            total += -term if sign == "-" else term
        return total

    def calculate(self, left: float, operation: str, right: float) -> float:
        """One step of a product; whole numbers are divided without a rest."""
        if operation != "/":
            return left * right
        if not right:
            self.config.bad(next(iter(self.config.fields), ""), "leads to a division by zero")
        return left // right if isinstance(left, int) and isinstance(right, int) else left / right

    def number(self, name: str) -> float:
        """A field that stands in a sum or product."""
        found = self.atom(name)
        real = isinstance(found, (int, float)) and not isinstance(found, bool)
        if not real or not -LARGEST <= found <= LARGEST:
            why = "is missing" if found is None else f"must be a number, not {str(found)[:40]}"
            self.config.bad(name, why)
        return float(found) if isinstance(found, float) else int(found)

    def atom(self, name: str) -> Any:
        """A number, a `let`, a field, the length or a part of a list, a field of a nested config."""
        if name[0].isdigit():
            return float(name) if "." in name else int(name)
        if "|" in name:
            return next((found for found in map(self.atom, name.split("|")) if found is not None), None)
        if name[0] == "#":
            found = self.atom(name[1:])
            return len(found) if isinstance(found, (list, dict)) else None if found is None else 1
        if name in self.let:
            set_here = self.let[name]
            return self.value(set_here) if isinstance(set_here, str) else set_here
        if name in BUILT_IN:
            return BUILT_IN[name](self)
        first, _, rest = name.partition(".")
        if rest.isdigit():
            found = self.config.raw(first)
            return found[int(rest)] if isinstance(found, list) and len(found) > int(rest) else found
        return self.nested(first).atom(rest) if rest else self.config.raw(name)

    def asked_layer(self) -> int:
        """Which layer this is; that a line asks for it is noted."""
        self.found.asked.add("layer")
        return self.layer

    def nested(self, field: str) -> _Reader:
        """The reader of a nested config."""
        config = self.config.sub(field)
        let = layout(config.kind).get("let", {}) if known(config.kind) else {}
        return _Reader(self.found, config, let, "Model", self.depth + 1)


COMPARED: dict[str | None, Callable[[_Reader, Any, str], bool]] = {
    None: lambda _reader, found, _wanted: bool(found),
    "=": lambda _reader, found, wanted: str(found) in wanted.split("|"),
    "!=": lambda _reader, found, wanted: str(found) not in wanted.split("|"),
    ":": lambda _reader, found, wanted: wanted in str(found),
    ">": lambda reader, found, wanted: found is not None and reader.number(wanted) < found,
    "@": lambda reader, found, wanted: found in (reader.atom(wanted) or ()),
    "<>": lambda reader, found, wanted: found != reader.value(wanted),
}
BUILT_IN: dict[str, Callable[[_Reader], Any]] = {
    "labels": lambda reader: labels(reader.config), "layer": lambda reader: reader.asked_layer(),
    "head": lambda reader: reader.head, "kind": lambda reader: reader.config.kind,
    "tied": lambda reader: reader.config.flag("tie_word_embeddings", True),
}  # fmt: skip
