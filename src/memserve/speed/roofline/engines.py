"""Engines by every name that callers and published tables use, and the limits of their schedulers."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from memserve import files

if TYPE_CHECKING:
    from memserve.hardware.machine import Card


GIB = 1024**3


class Limits(NamedTuple):
    """What a scheduler allows at once."""

    sequences: int
    tokens: int
    """Prompt tokens in one step."""
    sampler_bytes: float = 0.0
    """Memory set aside for sampling, per sequence and vocabulary entry."""


@cache
def _data() -> dict[str, Any]:
    return dict(files.table(__file__, "../data/engines.json"))


@cache
def kind(name: str) -> str | None:
    """The class of an engine, or None for one that nobody timed; tables add versions to the name."""
    word = name.strip().lower()
    classes = {known: str(row) for row, rows in _data()["classes"].items() for known in rows["names"]}
    if word in classes:
        return classes[word]
    inside = [known for known in classes if len(known) > 3 and known in word]
    return classes[min(inside, key=lambda known: (word.index(known), -len(known)))] if inside else None


@cache
def _release(version: str | None) -> tuple[int, ...] | None:
    found = re.match(r"v?(\d+)\.(\d+)", version or "")
    return (int(found.group(1)), int(found.group(2))) if found else None


@cache
def generation(engine: str, version: str | None) -> str | None:
    """The name of an older generation of an engine whose constants differ, or None for the current one."""
    release = _release(version)
    for row in _data()["generations"]:
        if row["class"] == engine and release and release < tuple(row["before"]):
            return str(row["name"])
    return None


def limits(engine: str, version: str | None, card: Card) -> Limits:
    """The scheduler's defaults of an engine class and version on a card."""
    release = _release(version)
    for row in _data()["limits"]:
        if row["class"] == engine and _applies(row, release, card):
            return Limits(row["sequences"], row["tokens"], _sampler(engine, release))
    return Limits(256, 2048)


def _applies(row: dict[str, Any], release: tuple[int, ...] | None, card: Card) -> bool:
    before = row.get("before")
    if before and not (release and release < tuple(before)):
        return False
    if card.memory < row.get("memory_gib", 0) * GIB:
        return False
    return not (row.get("not_card") and card.name.upper().startswith(row["not_card"]))


def _sampler(engine: str, release: tuple[int, ...] | None) -> float:
    for row in _data()["sampler"]:
        if row["class"] == engine and (not row.get("before") or (release and release < tuple(row["before"]))):
            return float(row["bytes"])
    return 0.0
