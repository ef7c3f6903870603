"""Reads the two numbers of a context overflow out of a server's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memserve.errors import ContextOverflow

if TYPE_CHECKING:
    from memserve.http.error_rows import KnownErrors


def find(known: KnownErrors, message: str, fields: Mapping[str, Any], status: int, *,
         certain: bool) -> ContextOverflow | None:  # fmt: skip
    """The overflow that a message speaks of; `certain`: its code says so whatever the words are."""
    hits = (pattern.search(message) for pattern in known.overflows)
    hit = next((hit for hit in hits if hit is not None), None)
    if hit is None and not certain:
        return None
    named = {group: fields[name] for name, group in known.overflow_fields.items() if name in fields}
    tokens, limit = _numbers(hit.groupdict() if hit else {})
    error = ContextOverflow(
        tokens=tokens if tokens is not None else _whole(named.get("tokens")),
        limit=limit if limit is not None else _whole(named.get("limit")),
        message=message or "the prompt exceeds the context",
    )
    error.status = status
    return error


def _numbers(groups: Mapping[str, str | None]) -> tuple[int | None, int | None]:
    found = {name: int(value.replace(",", "")) for name, value in groups.items() if value}
    if "prompt" in found:
        return found["prompt"] + found.get("answer", 0), found.get("limit")
    return found.get("tokens"), found.get("limit")


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int) else None
