"""What each flag of an engine's command changes, and which releases have it: the rows of a `flags.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from memserve.engines.command import Grammar
from memserve.engines.rules.version import version_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNKNOWN = "memserve does not know what it changes"


@dataclass(frozen=True)
class NotCounted:
    """A flag of a command whose bytes are not in the figures, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class FlagTable:
    """Every flag of one engine's parser, in each of the releases that were read."""

    engine: str
    releases: tuple[str, ...]
    grammar: Grammar
    counted: frozenset[str]
    """Flags that the account of memory, the layout or the rules read."""
    no_bytes: frozenset[str]
    not_counted: Mapping[str, str]
    """Every other flag, with the reason."""
    assumed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values of a flag that is not counted which say what the figures take anyway."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """The flag that took a removed one's place."""
    since: dict[str, Sequence[str]] = field(default_factory=dict)
    """The release that first has a flag, where the one read before has it not."""
    gone: dict[str, Sequence[str]] = field(default_factory=dict)
    source: str = ""

    @cached_property
    def names(self) -> frozenset[str]:
        """All flags, without dashes."""
        return self.counted | self.no_bytes | self.not_counted.keys()

    def releases_with(self, name: str) -> tuple[bool, ...]:
        """For each release that was read, whether it has the flag."""
        began = {flag: release for release, flags in reversed(self.since.items()) for flag in flags}
        ended = {flag: release for release, flags in reversed(self.gone.items()) for flag in flags}
        first, last = began.get(name), ended.get(name)
        order = {release: place for place, release in enumerate(self.releases)}
        has, found = first is None or (last is not None and order[last] < order[first]), []
        for release in self.releases:
            has = (has or name in self.since.get(release, ())) and name not in self.gone.get(release, ())
            found.append(has)
        return tuple(found)

    def has(self, name: str, version: str | None) -> bool:
        """Whether a release has a flag; between two that were read, either of them may speak for it."""
        key, keys = version_key(version), [version_key(release) for release in self.releases]
        before = max((place for place, one in enumerate(keys) if one <= key), default=0)
        exact = keys[before] >= key or before + 1 == len(keys)
        found = self.releases_with(name)
        return found[before] or (not exact and found[before + 1])

    def lacking(self, name: str, version: str) -> str:
        """Why a release refuses the flag: which others have it; empty where it has it."""
        if self.has(name, version):
            return ""
        runs = groupby(zip(self.releases, self.releases_with(name), strict=True), key=lambda one: one[1])
        spans = [[release for release, _ in run] for has, run in runs if has]
        said = " and ".join(one[0] if len(one) == 1 else f"{one[0]} to {one[-1]}" for one in spans)
        other = self.instead.get(name)
        known = f"{self.engine} {version}" if version[:1].isdigit() else f"the newest {self.engine}"
        return f"{known} has no --{name}; {said} have it" + (f"; now --{other}" if other else "")

    def left_out(self, name: str, value: str) -> str:
        """Why a flag's bytes are not in the figures; empty where they are, or where it has none."""
        if value in ("false", *self.assumed.get(name, ())):
            return ""
        return self.not_counted.get(name, "")


@runtime_checkable
class Flagged(Protocol):
    """A backend that knows every flag of its engine's command."""

    @property
    def flags(self) -> FlagTable | None:
        """Its table; None where nobody drew one."""
        ...


def flags_of(backend: object) -> FlagTable | None:
    """What a backend tells of its engine's flags."""
    return backend.flags if isinstance(backend, Flagged) else None


def read(rows: Mapping[str, Any]) -> FlagTable:
    """The values of a `flags.json`."""
    reasons = {name: reason for reason, names in rows["not_counted"].items() for name in names}
    switches, lists = frozenset(rows["switches"]), frozenset(rows["lists"])
    counted, no_bytes = frozenset(rows["counted"]), frozenset(rows["no_bytes"])
    values = (counted | no_bytes | reasons.keys()) - switches - lists
    return FlagTable(
        engine=rows["engine"], releases=tuple(rows["releases"]),
        grammar=Grammar(rows["aliases"], switches, lists, values, rows["engine"]),
        counted=counted, no_bytes=no_bytes, not_counted=reasons, assumed=rows["assumed"],
        instead=rows["instead"], since=rows["since"], gone=rows["gone"], source=rows["source"],
    )  # fmt: skip
