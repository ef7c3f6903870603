"""What each flag of an engine's command changes, and which releases have it: the rows of a `flags.json`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from memserve.engines.command import Grammar
from memserve.engines.rules import version_key

KINDS = "!*"
"""What ends the name of a switch, and of a flag that takes several values."""
UNKNOWN = "memserve does not know what it changes"
REASONS = {
    "draft": "of drafts the model's own MTP layers are counted, and a model that can be read here",
    "adapters": "adapters come on top",
    "graphs": "the release's own graph sizes are taken",
    "copies": "experts are placed otherwise, or copied",
    "moving": "buffers for moving weights or cache come on top",
    "images": "the model's own images and encoder are taken",
    "model": "the model is read from its own config.json",
    "cache": "the release's own division of the cache is taken",
    "workspace": "its workspaces come on top",
    "defaults": "it changes the release's defaults",
    "implementation": "nobody derived the memory of what it loads",
    "device": "the machine's own cards are taken",
}
"""Why a flag is not counted, by the word that a table uses; a table may have reasons of its own."""


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
    needs: Mapping[str, str] = field(default_factory=dict)
    """The flag without which the engine does not start with this one."""
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Of `releases`, the first that has a flag and the first after it that does not, by their places."""
    source: str = ""

    @cached_property
    def names(self) -> frozenset[str]:
        """All flags, without dashes."""
        return self.counted | self.no_bytes | self.not_counted.keys()

    def has(self, name: str, version: str) -> bool:
        """Whether a release has a flag; between two that were read, either of them may speak for it."""
        key, keys = version_key(version), [version_key(release) for release in self.releases]
        before = max((place for place, one in enumerate(keys) if one <= key), default=0)
        exact = keys[before] >= key or before + 1 == len(keys)
        first, end = self.spans[name]
        return first <= before < end or (not exact and first <= before + 1 < end)

    def lacking(self, name: str, version: str) -> str:
        """Why a release refuses the flag: which others have it; empty where it has it."""
        if self.has(name, version):
            return ""
        first, end = self.spans[name]
        those = dict.fromkeys((self.releases[first], self.releases[end - 1]))
        other = self.instead.get(name)
        known = f"{self.engine} {version}" if version[:1].isdigit() else f"the newest {self.engine}"
        instead = f"; now --{other}" if other and end < len(self.releases) else ""
        return f"{known} has no --{name}; {' to '.join(those)} have it{instead}"

    def alone(self, given: Mapping[str, str], version: str) -> Iterator[str]:
        """Flags that a release refuses for want of another."""
        on = {name for name, value in given.items() if value != "false"}
        for name, other in self.needs.items():
            if name in on and other not in on and self.has(other, version):
                yield f"{self.engine} refuses --{name} without --{other}"

    def left_out(self, name: str, value: str) -> str:
        """Why a flag's bytes are not in the figures; empty where they are, or where it has none."""
        if value in ("false", *self.assumed.get(name, ())):
            return ""
        return self.not_counted.get(name, "" if name in self.names else UNKNOWN)


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
    releases = tuple(rows["releases"])
    fates = {"counted": rows["counted"], "no_bytes": rows["no_bytes"], **rows["not_counted"]}
    listed = [(fate, *one.partition(" ")[::2]) for fate, ones in fates.items() for one in ones]
    of: dict[str, set[str]] = {fate: set() for fate in fates}
    kinds: dict[str, set[str]] = {kind: set() for kind in ("", *KINDS)}
    for fate, name, _ in listed:
        bare = name.rstrip(KINDS)
        of[fate].add(bare)
        kinds[name[len(bare) :]].add(bare)
    values, switches, lists = map(frozenset, kinds.values())
    counted, no_bytes = frozenset(of.pop("counted")), frozenset(of.pop("no_bytes"))
    return FlagTable(
        engine=rows["engine"], releases=releases, source=rows["source"],
        grammar=Grammar(rows["aliases"], switches, lists, values, rows["engine"]),
        counted=counted, no_bytes=no_bytes,
        not_counted={name: REASONS.get(fate, fate) for fate, names in of.items() for name in names},
        assumed=rows["assumed"], instead=rows["instead"], needs=rows.get("needs", {}),
        spans={name.rstrip(KINDS): _span(span, releases) for _, name, span in listed},
    )  # fmt: skip


def _span(text: str, releases: Sequence[str]) -> tuple[int, int]:
    """`FIRST-GONE`, either of which may be left out, as places in the releases."""
    first, _, gone = text.partition("-")
    return releases.index(first) if first else 0, releases.index(gone) if gone else len(releases)
