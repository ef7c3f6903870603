"""The installed backends: by name, by trust, by a command of theirs, and by what each of them tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from memserve import registry
from memserve.engines.backend import Plannable, is_plannable, server_of
from memserve.engines.command import shown
from memserve.engines.log import LogFormat, Logged
from memserve.engines.speed import EngineSpeed, Timed
from memserve.errors import InvalidInput

if TYPE_CHECKING:
    from memserve.engines.server import Program
    from memserve.protocol import Backend

UNRANKED = 9


def named(name: str) -> Plannable:
    """The backend of that name; `UnknownName` if there is none."""
    return cast("Plannable", registry.find(name))


def can_plan(name: str) -> bool:
    """Whether a backend, ours or another's, can be planned with on the user's own cards."""
    return may(name, "rules") and is_plannable(registry.find(name))


@registry.remembered
def plannable() -> tuple[str, ...]:
    """Every backend that can be planned with, the most trusted first."""
    found = [name for name in registry.names() if can_plan(name)]
    return tuple(sorted(found, key=lambda name: (rank(name), name)))


def plans_locally(backend: str | None) -> bool:
    """Whether the backend that is asked for, if any, runs on the user's own cards."""
    return backend is None or can_plan(backend)


def asked(backend: str | None, version: str | None) -> Sequence[str]:
    """Those that are named; with a bare version, those that ever offered it, else the first."""
    every = plannable()
    if backend is not None or version is None:
        return every if backend is None else (backend,)
    releases = ((name, named(name).rules["versions"]) for name in every)
    return [name for name, rows in releases if any(row["version"] == version for row in rows)] or every[:1]


def knows(backend: Plannable, architecture: str) -> bool:
    """Whether the engine has a model class itself; one without a table has those that any other has."""
    own = backend.rules.get("architectures") or {}
    tables = [own] if own else [named(name).rules.get("architectures") or {} for name in plannable()]
    return any(architecture in table.get("rows", ()) for table in tables)


def rank(name: str) -> float:
    """How far the planner trusts it: 1 before 2."""
    return float(named(name).rules.get("rank", UNRANKED))


@registry.remembered
def logs() -> dict[str, LogFormat]:
    """How the start-up logs of the backends' engines are read, where that is known."""
    found = {name: one.log for name, one in _that_may("log") if isinstance(one, Logged)}
    return {name: log for name, log in found.items() if log is not None}


@registry.remembered
def speeds() -> dict[str, EngineSpeed]:
    """How the backends' engines spend their time, where that is known."""
    found = {name: one.speed for name, one in _that_may("speed") if isinstance(one, Timed)}
    return {name: speed for name, speed in found.items() if speed is not None}


def _that_may(part: str) -> Iterator[tuple[str, Backend]]:
    return ((name, registry.find(name)) for name in registry.names() if may(name, part))


def may(name: str, part: str) -> bool:
    """Providers' folders of our own without the part's file are left alone: they load the HTTP client."""
    package = registry.home(name) or ""
    ours = package.startswith("memserve_")
    return not ours or any(file.endswith(f"{part}.json") for file in registry.files_of(package))


def program_of(command: Sequence[str], backend: str | None = None) -> tuple[str, Program]:
    """The backend whose server a command starts, and how; `backend`: the one that it was planned for."""
    known = []
    for name in (backend,) if backend in plannable() else plannable():
        server = server_of(named(name))
        program = server.started_by(command) if server else None
        if program is not None:
            return name, program
        known += [" ".join(start) for one in (server.programs if server else ()) for start in one.starts[:1]]
    said = shown(command)[:120]
    raise InvalidInput(f"no server is started by {said!r}", hint=f"known: {', '.join(dict.fromkeys(known))}")


def speaking(dialect: str) -> str | None:
    """The backend of the engine whose server speaks so; None where that tells no engine."""
    servers = ((name, server_of(named(name))) for name in plannable())
    mine = (name for name, server in servers if server and server.programs[0].dialect == dialect)
    return next(mine, None)


def common_client() -> str:
    """The backend that most engines' servers are spoken to with: for one of which nothing is known."""
    servers = (server_of(named(name)) for name in plannable())
    clients = [program.client for server in servers if server for program in server.programs]
    return max(clients, key=clients.count)
