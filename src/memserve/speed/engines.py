"""Engines by every name that callers and published tables use, and the limits of their schedulers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memserve.hardware.machine import Card

GIB = 1024**3


@dataclass(frozen=True)
class Limits:
    """What a scheduler allows at once."""

    sequences: int
    tokens: int
    """Prompt tokens in one step."""


@cache
def _data() -> dict[str, Any]:
    return dict(json.loads((files("memserve.speed") / "data" / "engines.json").read_text(encoding="utf-8")))


@cache
def kind(name: str) -> str | None:
    """The class of an engine, or None for one that nobody timed."""
    word = name.strip().lower()
    for known, row in _data()["classes"].items():
        if word in row["names"]:
            return str(known)
    return None


@cache
def _release(version: str | None) -> tuple[int, ...] | None:
    found = re.match(r"v?(\d+)\.(\d+)", version or "")
    return (int(found.group(1)), int(found.group(2))) if found else None


def limits(engine: str, version: str | None, card: Card) -> Limits:
    """The scheduler's defaults of an engine class and version on a card."""
    release = _release(version)
    for row in _data()["limits"]:
        if row["class"] == engine and _applies(row, release, card):
            return Limits(row["sequences"], row["tokens"])
    return Limits(256, 2048)


def _applies(row: dict[str, Any], release: tuple[int, ...] | None, card: Card) -> bool:
    before = row.get("before")
    if before and not (release and release < tuple(before)):
        return False
    if card.memory < row.get("memory_gib", 0) * GIB:
        return False
    return not (row.get("not_card") and card.name.upper().startswith(row["not_card"]))
