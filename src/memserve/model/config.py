"""A config.json read with care: every field checked, what is missing taken from transformers' own classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from memserve import files
from memserve.errors import ModelUnreadable

if TYPE_CHECKING:  # pathlib costs a plan more than it does
    from pathlib import Path

LARGEST = 1 << 32
MOST_LAYERS = 4096
DEEPEST = 6


@cache
def _default_lines() -> str:
    return files.beside(__file__, "data/defaults.jsonl")


@cache
def class_defaults(kind: str) -> dict[str, Any]:
    """The row of one transformers config class: fields, aliases ("map") and nested configs ("subs")."""
    text = _default_lines()
    start = text.find(f'{{"type":{json.dumps(kind)},')
    if start < 0:
        return {}
    row: dict[str, Any] = json.loads(text[start : text.index("\n", start)])
    return row


class Config:
    """One (nested) config: attribute names as transformers has them, values checked when they are read."""

    def __init__(self, values: Mapping[str, Any], kind: str, path: str, prefix: str = "") -> None:
        row = class_defaults(kind)
        self.kind = kind
        self.path = path
        self.prefix = prefix
        self.given = dict(values)
        self.known = bool(row)
        self.aliases: dict[str, str] = row.get("map", {})
        self.subs: dict[str, list[Any]] = row.get("subs", {})
        self.fields: dict[str, Any] = row.get("fields", {})
        for alias, field in self.aliases.items():
            if alias in self.given:
                self.given.setdefault(field, self.given[alias])

    def bad(self, field: str, why: str) -> NoReturn:
        """Refuse the config because of one field."""
        name = f"{self.prefix}{field}"
        raise ModelUnreadable(f"{self.path}: field {name!r} {why}", path=self.path, field=name)

    def has(self, field: str) -> bool:
        """Whether the file itself (not a default) gives a value that is not null."""
        return self._given(field) is not None

    def _given(self, field: str) -> Any:
        value = self.given.get(self.aliases.get(field, field))
        if value is None:
            value = self.given.get(field)
        return value

    def raw(self, field: str, default: Any = None) -> Any:
        """The value as written, else the class default, else `default`. An explicit null stays null."""
        target = self.aliases.get(field, field)
        for name in (target, field):
            if name in self.given:
                return self.given[name]
        found = self.fields.get(target, self.fields.get(field))
        return default if found is None else found

    def maybe(self, field: str) -> int | None:
        """A count, or None where it is null or unknown."""
        value = self.raw(field)
        return None if value is None else self._count(field, value)

    def size(self, field: str, default: int | None = None) -> int:
        """A count that must be known."""
        value = self.raw(field, default)
        if value is None:
            value = default
        if value is None:
            self.bad(field, "is missing")
        return self._count(field, value)

    def _count(self, field: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.bad(field, f"must be a whole number, not {_show(value)}")
        if not 0 <= value <= LARGEST:
            self.bad(field, f"is out of range: {_show(value)}")
        return value

    def first(self, *fields: str) -> int:
        """The first of several spellings that is there."""
        for field in fields:
            value = self.maybe(field)
            if value is not None:
                return value
        return self.bad(fields[0], "is missing")

    def flag(self, field: str, default: bool = False) -> bool:
        """A switch."""
        value = self.raw(field, default)
        if value is None:
            return default
        if not isinstance(value, (bool, int)):
            self.bad(field, f"must be true or false, not {_show(value)}")
        return bool(value)

    def text(self, field: str, default: str = "") -> str:
        """A word."""
        value = self.raw(field, default)
        if value is None:
            return default
        if not isinstance(value, str):
            self.bad(field, f"must be text, not {_show(value)}")
        return value

    def items(self, field: str) -> list[Any] | None:
        """A list, or None."""
        value = self.raw(field)
        if value is not None and not isinstance(value, list):
            self.bad(field, f"must be a list, not {_show(value)}")
        return value

    def table(self, field: str) -> dict[str, Any]:
        """A nested table, empty where it is missing or null."""
        value = self.raw(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.bad(field, f"must be a table, not {_show(value)}")
        return value

    def layers(self, field: str = "num_hidden_layers") -> int:
        """The number of layers, within reason."""
        count = self.size(field)
        if not 1 <= count <= MOST_LAYERS:
            self.bad(field, f"is out of range: {count}")
        return count

    def pair(self, field: str, default: int | None = None) -> tuple[int, int]:
        """An image or patch size: one number or two."""
        value = self.raw(field, default)
        if isinstance(value, list) and len(value) == 2:
            return self._count(field, value[0]), self._count(field, value[1])
        if value is None:
            self.bad(field, "is missing")
        side = self._count(field, value)
        return side, side

    def sub(self, field: str) -> Config:
        """A nested config with the defaults of its own class."""
        if self.prefix.count(".") >= DEEPEST:
            self.bad(field, "is nested too deep")
        kind, fixed, *rest = self.subs.get(field, ["", False])
        given = self.table(field)
        if not given and field == "text_config" and self.has("hidden_size"):
            given = {name: value for name, value in self.given.items() if name != "model_type"}
        if self.raw(field) is None and not given and rest:
            given = rest[0]
        written = given.get("model_type")
        if not fixed and isinstance(written, str) and written:
            kind = written
        return Config(given, kind, self.path, f"{self.prefix}{field}.")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or ModelUnreadable."""
    try:
        with path.open(encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise ModelUnreadable(f"{path}: cannot be read: {error.strerror}", path=str(path)) from error
    except (ValueError, RecursionError) as error:
        why = str(error) or "nested too deep"
        raise ModelUnreadable(f"{path}: not valid JSON: {why[:120]}", path=str(path)) from error
    if not isinstance(found, dict):
        raise ModelUnreadable(f"{path}: holds no JSON object", path=str(path))
    return found
