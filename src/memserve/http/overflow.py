"""Reads the two numbers of a context overflow out of a server's words."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from memserve.errors import ContextOverflow

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOKENS = ("n_prompt_tokens",)
_LIMIT = ("n_ctx",)


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    rows = json.loads(files("memserve.http").joinpath("data/overflow.json").read_text("utf-8"))["patterns"]
    return tuple(re.compile(row["pattern"], re.IGNORECASE | re.DOTALL) for row in rows)


def find(message: str, fields: Mapping[str, Any], status: int, *, certain: bool) -> ContextOverflow | None:
    """The overflow that a message speaks of; `certain`: its code says so whatever the words are."""
    hits = (pattern.search(message) for pattern in _patterns())
    hit = next((hit for hit in hits if hit is not None), None)
    if hit is None and not certain:
        return None
    tokens, limit = _numbers(hit.groupdict() if hit else {})
    error = ContextOverflow(
        tokens=tokens if tokens is not None else _field(fields, _TOKENS),
        limit=limit if limit is not None else _field(fields, _LIMIT),
        message=message or "the prompt exceeds the context",
    )
    error.status = status
    return error


def _numbers(groups: Mapping[str, str | None]) -> tuple[int | None, int | None]:
    found = {name: int(value.replace(",", "")) for name, value in groups.items() if value}
    if "prompt" in found:
        return found["prompt"] + found.get("answer", 0), found.get("limit")
    return found.get("tokens"), found.get("limit")


def _field(fields: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((int(fields[name]) for name in names if isinstance(fields.get(name), int)), None)
