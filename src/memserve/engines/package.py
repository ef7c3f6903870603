"""A backend kept as a package: tables, and modules that load only when asked for.

`rules.json` and `server.json` hold facts; `<package>.memory` holds `accountant`, `<package>.launch` holds
`launcher`, `<package>.engine` holds `capabilities` and `open_engine`. So a planner on a laptop reads rules,
memory and launch, and no engine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from memserve import files
from memserve.engines.backend import Plannable
from memserve.engines.install import options_of
from memserve.engines.launch import Launcher
from memserve.engines.log import LogFormat
from memserve.engines.memory import Accountant
from memserve.engines.speed import EngineSpeed

if TYPE_CHECKING:
    from collections.abc import Callable

    from memserve.engines.command import Words
    from memserve.engines.flags import FlagTable
    from memserve.engines.server import ServerFacts
    from memserve.protocol import Capabilities, Task


class Package(Plannable):
    """What an engine's entry point resolves to. `part`: a package's second backend, all in PARTengine."""

    def __init__(self, name: str, package: str, *, part: str = "", served: bool = False) -> None:
        self.name = name
        self.package = package
        self.part = part
        self.served = served
        """Whether its engine runs as a server where `server` is not said."""

    @cached_property
    def rules(self) -> Mapping[str, Any]:
        """Releases, refusals, architectures (PACKAGE/FILE: another's); with their source."""
        rows = self._read("rules")
        return {**rows, "architectures": self._read(rows["architectures"]) if "architectures" in rows else {}}

    @cached_property
    def server(self) -> ServerFacts | None:
        """How its server listens, spans nodes and is packed."""
        from memserve.engines import server

        rows = self._optional("server")
        return None if rows is None else server.read(rows)

    def arguments(self, command: Sequence[str]) -> tuple[str, ...] | None:
        """What follows the words that start this engine's server; None for another command."""
        program = self.server.started_by(command) if self.server else None
        return None if program is None else program.arguments(command)

    def words(self, command: Sequence[str], each: Callable[[str], str] = str) -> Words | None:
        """A command of this engine's server taken apart, `each` word said in full; None for another."""
        from memserve.engines.command import Grammar, read

        arguments = self.arguments(command)
        if arguments is None:
            return None
        return read(map(each, arguments), self.flags.grammar if self.flags else Grammar())

    @cached_property
    def flags(self) -> FlagTable | None:
        """Every flag of its server's command (PACKAGE/FILE: another's); None where nobody drew one."""
        from memserve.engines import flags

        rows = self._optional(self.rules.get("flags", "flags"))
        return None if rows is None else flags.read(rows)

    @cached_property
    def log(self) -> LogFormat | None:
        """How the engine's start-up log is read; None where nobody wrote that down."""
        return cast("LogFormat | None", self._optional("log"))

    @cached_property
    def speed(self) -> EngineSpeed | None:
        """How the engine spends its time; None where nobody measured it."""
        return cast("EngineSpeed | None", self._optional("speed"))

    @cached_property
    def making(self) -> Mapping[str, Any] | None:
        """What its own tools make, for `memserve compress`; None where it has none."""
        return self._optional("making")

    def _optional(self, name: str) -> dict[str, Any] | None:
        """A file's rows, with those that it leaves out from the file that it is `like` (PACKAGE/FILE)."""
        try:
            rows = self._read(name)
        except FileNotFoundError:
            return None
        return {**self._read(rows["like"]), **rows} if "like" in rows else rows

    def _read(self, name: str) -> dict[str, Any]:
        home = cast("str", sys.modules[self.package].__file__)
        file = f"../{name}.json" if "/" in name else f"{self.part}{name}.json"
        return cast("dict[str, Any]", files.table(home, file))

    @property
    def memory(self) -> Accountant:
        """How this engine divides a card's memory."""
        return cast("Accountant", self._module("memory").accountant)

    @property
    def launch(self) -> Launcher:
        """How this engine is installed and started."""
        return cast("Launcher", self._module("launch").launcher)

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do at best, before a model is named; loads no engine."""
        return cast("Capabilities", self._module("engine").capabilities)

    def open(self, model: str | None = None, *, task: Task = "generate", server: Any = None,
             env: Mapping[str, str] | None = None, **options: Any) -> Any:  # fmt: skip
        """Start an engine for one task; raises `BackendMissing` with the install line.

        `env` is given to its server; in this process it fills in what is not set.
        """
        served = self.served if server is None else str(server).lower() in ("true", "1", "yes")
        apart = served or bool(options.get("batch"))  # in a process of its own
        if apart and env:
            options["env"] = env
        for name, text in ({} if apart else env or {}).items():
            os.environ.setdefault(name, text)
        if served or server is not None:
            options["server"] = served
        return self._module("engine").open_engine(model, task=task, **options)

    def plan_options(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `open` for a plan, as `Plan.to_dict()` gives it: all that its command says."""
        plan = facts.get("plan") or facts
        bare, options = options_of(self.arguments(plan.get("command") or ("",)) or ())
        named = {"model": bare[0]} if bare else {}
        return {**named, **options, **({"env": plan["env"]} if plan.get("env") else {})}

    def _module(self, name: str) -> Any:
        return import_module(f"{self.package}.{self.part}{'engine' if self.part else name}")
