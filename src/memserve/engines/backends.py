"""The installed backends that run on the user's own cards: by name, by trust, by a command of theirs."""

from __future__ import annotations

from functools import cache
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, cast

from memserve import files, registry
from memserve.engines.backend import is_plannable, server_of
from memserve.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memserve.engines.backend import Plannable
    from memserve.engines.server import Program

UNRANKED = 9


def named(name: str) -> Plannable:
    """The backend of that name; `UnknownName` if there is none."""
    return cast("Plannable", registry.find(name))


def can_plan(name: str) -> bool:
    """Whether a backend, ours or another's, can be planned with on the user's own cards."""
    return _may_plan(name) and is_plannable(registry.find(name))


@cache
def plannable() -> tuple[str, ...]:
    """Every backend that can be planned with, the most trusted first."""
    found = [name for name in registry.names() if can_plan(name)]
    return tuple(sorted(found, key=lambda name: (rank(name), name)))


def rank(name: str) -> int:
    """How far the planner trusts it: 1 before 2."""
    return int(named(name).rules.get("rank", UNRANKED))


@cache
def _may_plan(name: str) -> bool:
    """Ours without rules are providers: asking them would load the HTTP client for nothing."""
    package = registry.home(name) or ""
    spec = PathFinder.find_spec(package) if package.startswith("memserve_") else None
    if spec is None or spec.origin is None:
        return True
    folders = spec.submodule_search_locations or ()
    return any(name.endswith("rules.json") for folder in folders for name in files.names(folder))


def program_of(command: Sequence[str], backend: str | None = None) -> tuple[str, Program]:
    """The backend whose server a command starts, and how; `backend`: the one that it was planned for."""
    known = []
    for name in (backend,) if backend in plannable() else plannable():
        server = server_of(named(name))
        program = server.started_by(command) if server else None
        if program is not None:
            return name, program
        known += [" ".join(start) for one in (server.programs if server else ()) for start in one.starts[:1]]
    said = " ".join(command)[:120]
    raise InvalidInput(f"no server is started by {said!r}", hint=f"known: {', '.join(dict.fromkeys(known))}")
