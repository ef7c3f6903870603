"""Engines by every name that callers and published tables use, and the limits of their schedulers.

What is known of an engine stands in its backend's folder (speed.json), or, where none of ours drives it,
in data/published.json.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, cast

from memserve import files, registry
from memserve.engines import installed
from memserve.engines.speed import EngineSpeed, Generation, LimitRow, SamplerRow
from memserve.hardware.machine import GIB, Card

UNKNOWN = "default"
"""The class of an engine that nobody timed."""
DEFAULT = (256, 2048)
"""Sequences and prompt tokens in a step, where an engine does not say."""


class SchedulerLimits(NamedTuple):
    """What a scheduler allows at once."""

    sequences: int
    tokens: int
    """Prompt tokens in one step."""
    sampler_bytes: float = 0.0
    """Memory set aside for sampling, per sequence and vocabulary entry."""


def facts(engine: str) -> EngineSpeed:
    """What is known of a class of engines."""
    return _classes().get(engine, {})


@registry.remembered
def kind(name: str) -> str | None:
    """The class of an engine, or None for one that nobody timed; tables add versions to the name."""
    word = name.strip().lower()
    names = {known: name for name, row in _classes().items() for known in (name, *row.get("names", ()))}
    if word in names or word in registry.names():
        return names.get(word)
    inside = [known for known in names if len(known) > 3 and known in word]
    return names[min(inside, key=lambda known: (word.index(known), -len(known)))] if inside else None


def most_measured() -> str:
    """The backend whose figures rest on the most published measurements."""
    timed = installed.speeds()
    return max(timed, key=lambda name: timed[name].get("rows", 0))


def used(backend: str, card: Card) -> str:
    """The class whose figures count on a card: on some makers' cards every engine computes alike."""
    found = (name for name, row in _classes().items() if row.get("every_engine_on") == card.vendor)
    return next(found, None) or kind(backend) or UNKNOWN


@registry.remembered
def _classes() -> dict[str, EngineSpeed]:
    published = cast("dict[str, EngineSpeed]", files.table(__file__, "../data/published.json")["engines"])
    return {**published, **installed.speeds()}


@cache
def _release(version: str | None) -> tuple[int, ...] | None:
    found = re.match(r"v?(\d+)\.(\d+)", version or "")
    return (int(found.group(1)), int(found.group(2))) if found else None


def generation(engine: str, version: str | None) -> str | None:
    """The name of an older generation of an engine whose constants differ, or None for the current one."""
    rows = facts(engine).get("generations", ())
    return next((row["name"] for row in rows if _applies(row, version)), None)


def limits(engine: str, version: str | None, card: Card) -> SchedulerLimits:
    """The scheduler's defaults of an engine class and version on a card."""
    known = facts(engine)
    for row in known.get("limits", ()):
        if _applies(row, version) and _takes(row, card):
            return SchedulerLimits(
                row["sequences"], row["tokens"], _sampler(known.get("sampler", ()), version)
            )
    return SchedulerLimits(*DEFAULT)


def _applies(row: LimitRow | SamplerRow | Generation, version: str | None) -> bool:
    before, release = row.get("before"), _release(version)
    return not before or (release is not None and release < tuple(before))


def _takes(row: LimitRow, card: Card) -> bool:
    other = row.get("not_card")
    return card.memory >= row.get("memory_gib", 0) * GIB and not (
        other and card.name.upper().startswith(other)
    )


def _sampler(rows: Sequence[SamplerRow], version: str | None) -> float:
    return next((row["bytes"] for row in rows if _applies(row, version)), 0.0)
