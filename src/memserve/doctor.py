"""memserve doctor: what was found on this machine, which engines are here, and what is missing."""

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from memserve import cli, registry
from memserve.errors import MemserveError
from memserve.missing import install_line, release_of
from memserve.plan.page import Section, Shown

HEADER = ("", "state", "keys", "here", "missing")
DEVELOPERS = frozenset({"test", "dev", "docs", "oracles", "fuzz", "release"})
"""Extras that only people who change memserve need."""
_REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)[^;]*;.*\bextra == ['\"]([\w-]+)['\"]")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@runtime_checkable
class Keyed(Protocol):
    """A backend that says which environment variables its keys are read from."""

    keys: Sequence[str]


@dataclass(frozen=True)
class Part:
    """A backend or another extra: what it needs, and which of that is here."""

    name: str
    backend: bool
    installed: Mapping[str, str]
    """Packages that are here, with their releases."""
    missing: tuple[str, ...]
    install: str
    """The line that installs what is missing; empty where nothing is."""
    keys: Mapping[str, bool]
    """Variables that its keys are read from, and whether each is set; never what it holds."""
    by_hand: bool = False
    """No package installs it: its plan says what does."""

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.by_hand:
            return "by hand"
        return "ready" if not self.missing else "incomplete" if self.installed else "not installed"


@dataclass(frozen=True, repr=False)
class Diagnosis(Shown):
    """What `memserve doctor` found."""

    machine: Mapping[str, Any]
    python: Mapping[str, str]
    parts: tuple[Part, ...]

    @property
    def fits(self) -> bool:
        """A missing engine is no failure: nobody needs all of them."""
        return True

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"schema": 1, "machine": dict(self.machine), "python": dict(self.python),
                "parts": [{**asdict(part), "state": part.state} for part in self.parts]}  # fmt: skip

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterator[Section]:
        """The machine, the engines, what installs what is missing."""
        yield Section(f"memserve {self.python['memserve']} on {self.machine['name']}", style="good")
        notes = self.machine["notes"]
        facts = {**self.machine, **self.python, "notes": "; ".join(notes)}
        yield Section(rows=tuple((name, str(value)) for name, value in facts.items() if value))
        yield Section("engines and extras", HEADER, tuple(map(_row, self.parts)))
        lines = tuple(part.install for part in self.parts if part.install)
        if lines:
            title = "what installs the rest (an environment for each engine: the newest exclude each other)"
            yield Section(title, lines=lines, as_is=True)


def parser() -> cli.Parser:
    """Every option of the command."""
    made = cli.Parser("doctor", __doc__)
    made.add_argument("--json", action="store_true", help="one JSON object")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """0 done, 2 malformed."""
    return cli.answer(lambda: _run(words))


def _run(words: Sequence[str] | None) -> int:
    from memserve.plan.page import show

    options = parser().read(words)
    return show(diagnosis(), options)


def diagnosis() -> Diagnosis:
    """Looks at this machine and this environment."""
    python = {
        "memserve": release_of("memserve") or "not installed", "python": platform.python_version(),
        "interpreter": sys.executable, "system": platform.platform(),
    }  # fmt: skip
    needs = requirements()
    names = [*registry.names(), *sorted(set(needs) - set(registry.names()) - DEVELOPERS)]
    return Diagnosis(machine(), python, tuple(part(name, needs) for name in names))


def machine() -> dict[str, Any]:
    """The cards, their driver, the processor and the memory."""
    from memserve.hardware import detect
    from memserve.hardware.detection import host

    notes: tuple[str, ...]
    try:
        found = detect()
    except MemserveError as error:
        found, notes = host.machine(), (str(error),)
    else:
        notes = found.notes
    return {
        "name": f"{found.cards}x{found.card.name}", "vendor": found.card.vendor, "cards": found.cards,
        "memory_gib_per_card": round(found.card.memory / 2**30, 2),
        "driver": host.release(found.card.vendor), "cores": host.cores(),
        "memory_gib": round(host.memory() / 2**30, 1), "notes": list(notes),
    }  # fmt: skip


def requirements() -> dict[str, list[str]]:
    """What each extra of memserve needs, as its installed metadata says."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        about = metadata("memserve")
    except PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {name: [] for name in about.get_all("Provides-Extra") or ()}
    for line in about.get_all("Requires-Dist") or ():
        match = _REQUIREMENT.match(line)
        if match and match[1] != "memserve":
            found.setdefault(match[2], []).append(match[1])
    return found


def part(name: str, needs: Mapping[str, Sequence[str]]) -> Part:
    """One backend or extra."""
    backend: Any = registry.find(name) if name in registry.names() else None
    release = _newest(backend)
    packages = [match[0] for one in release.get("packages", ()) if (match := _NAME.match(one))]
    wanted = tuple(dict.fromkeys(needs.get(name) or packages))
    here = {package: found for package in wanted if (found := release_of(package)) is not None}
    missing = tuple(package for package in wanted if package not in here)
    line = install_line(name) if name in needs else f"pip install {' '.join(missing)}"
    keys = backend.keys if isinstance(backend, Keyed) else ()
    return Part(name, backend is not None, here, missing, line if missing else "",
                {key: bool(os.environ.get(key)) for key in keys}, bool(release) and not wanted)  # fmt: skip


def _newest(backend: Any) -> Mapping[str, Any]:
    """The newest release that a plannable backend offers."""
    rules = getattr(backend, "rules", None) or {}
    return next(iter(rules.get("versions", ())), {})


def _row(part: Part) -> tuple[str, ...]:
    here = ", ".join(f"{package} {release}" for package, release in part.installed.items())
    keys = ", ".join(f"{key} {'set' if there else 'not set'}" for key, there in part.keys.items())
    return part.name, part.state, keys or "-", here or "-", ", ".join(part.missing) or "-"


if __name__ == "__main__":
    cli.short(main)
