"""An engine in a server process of its own, behind the same protocol as one in this process."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from memserve import registry
from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.errors import BackendMissing
from memserve.missing import install_line
from memserve.protocol import Capabilities, Completion, Request, SupportsAsyncClose, SupportsClose, Task
from memserve.serve.server import Process, Server, check, run_by, start, surroundings

_SWITCH = {"true": True, "false": False}
_OPTIONAL = (
    "any_loop", "fills_max_tokens", "identity", "astream", "ascore", "acount_tokens", "aembed", "arerank",
)  # fmt: skip


class Served:
    """Drives a server over HTTP and ends it with `aclose`. What is optional is the HTTP engine's own."""

    def __init__(self, server: Server, engine: Any, backend: str) -> None:
        self._server, self._engine, self._backend = server, engine, backend
        for name in _OPTIONAL:  # held, not looked up: `isinstance` asks what an object itself has
            if hasattr(engine, name):
                setattr(self, name, getattr(engine, name))

    @property
    def capabilities(self) -> Capabilities:
        """The HTTP backend's, under this backend's name."""
        over_http: Capabilities = self._engine.capabilities
        return replace(over_http, backend=self._backend)

    async def complete(self, request: Request) -> Completion:
        """One request, awaited; a dead server is told from a slow one."""
        try:
            answer: Completion = await self._engine.complete(request)
        except Exception:
            self._server.check()
            raise
        return answer

    async def aclose(self) -> None:
        """Close the connections, then end the server."""
        try:
            if isinstance(self._engine, SupportsAsyncClose):
                await self._engine.aclose()
            elif isinstance(self._engine, SupportsClose):
                self._engine.close()
        finally:
            self._server.stop()


_HOW = ("python", "timeout", "port", "env")


def apart(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How `open_served` starts a server, and the engine's own options: true and false as such."""
    how = {name: value for name, value in options.items() if name in _HOW}
    own = {name: value for name, value in options.items() if name not in _HOW}
    return how, {name: _SWITCH.get(str(value).lower(), value) for name, value in own.items()}


def open_served(command: Sequence[str], model: str, task: Task, backend: str, *, timeout: float = 1800.0,
                python: str | None = None, port: int | str | None = None, **how: Any) -> Served:  # fmt: skip
    """Start a server and open it through the backend that speaks to it over HTTP."""
    python = python or _interpreter(command, backend)
    server = start(command, timeout=float(timeout), python=python, backend=backend,
                   port=None if port is None else int(port), **how)  # fmt: skip
    try:
        engine = registry.find(server.program.client).open(
            model, task=task, base_url=server.base_url, api_key=server.reveal_key(),
            dialect=server.program.dialect,
        )  # fmt: skip
    except BaseException:
        server.stop()
        raise
    return Served(server, engine, backend)


class Errand:
    """A program of an engine that ends by itself, in the environment that its server has."""

    def __init__(self, command: Sequence[str], backend: str, log: Path, *, python: str | None = None,
                 env: Mapping[str, str] | None = None) -> None:  # fmt: skip
        facts = server_of(installed.named(backend))
        assert facts is not None
        program = facts.program
        python = python or _interpreter([*program.starts[0]], backend)
        words = run_by(command, program, python)
        self._process, self._backend = Process(words, surroundings(backend, command, env), log), backend

    def running(self) -> bool:
        """False once it has ended well; raises in plain words where it died."""
        if self._process.exit_code != 0:
            check(self._process, self._backend)
        return self._process.exit_code is None

    def stop(self) -> None:
        """End it and its children; twice is once."""
        self._process.stop()


def _interpreter(command: Sequence[str], backend: str) -> str | None:
    """This one, if the engine is here; else whatever program of that name there is, or what to install."""
    package = installed.program_of(command, backend)[1].package
    if find_spec(package) is not None:
        return sys.executable
    if command[0] != "python" and which(command[0]):
        return None
    install = f"{install_line(backend)}, or pass python= with the interpreter that has it"
    raise BackendMissing(backend, needs=package, install=install)
