"""Starts an engine's server, waits until it answers, and stops it: nothing hangs and nothing is left over."""

from __future__ import annotations

import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memserve.errors import EngineFailed, TimedOut
from memserve.serve.diagnosis import diagnose
from memserve.serve.health import answers, free_port
from memserve.serve.manner import manner_of
from memserve.serve.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from memserve.serve.manner import Manner

LOOPBACK = "127.0.0.1"
START_SECONDS = 1800.0
"""Loading 400 GiB of weights from a network disk takes a quarter of an hour."""
_POLL_SECONDS = 0.25
_ANYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Progress:
    """What is known while a server starts: seconds, and the last line that it wrote."""

    seconds: float
    line: str


class Server:
    """A running server. A context manager: leaving it ends the process and all its children."""

    def __init__(self, process: Process, manner: Manner, host: str, port: int, key: str) -> None:
        self._process, self.manner, self.host, self.port = process, manner, host, port
        self._key = key

    @property
    def base_url(self) -> str:
        """Where its OpenAI-style routes begin."""
        return f"http://{self.host}:{self.port}{self.manner.api}"

    @property
    def log(self) -> Path:
        """The file with all that it wrote."""
        return self._process.log

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """False once it has ended, for whatever reason."""
        return self._process.exit_code is None

    def reveal_key(self) -> str:
        """The key that the server asks for: for code that calls it, not for logs."""
        return self._key

    def wait(self, seconds: float, report: Callable[[Progress], None] | None = None) -> None:
        """Return once it answers; raise with the engine's reason if it dies or takes too long."""
        began = time.monotonic()
        while not self._answers():
            self.check()
            passed = time.monotonic() - began
            if passed > seconds:
                last = _last_line(self._process.tail())
                raise TimedOut(f"the server did not answer within {seconds:.0f} s; its last line: {last}")
            if report:
                report(Progress(passed, _last_line(self._process.tail())))
            time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Raise in plain words if the server has died."""
        code = self._process.exit_code
        if code is None:
            return
        found = diagnose(self._process.tail().replace(self._key, "***"))
        raise EngineFailed(
            f"{self.manner.name} died with exit code {code}: {found.problem}: {found.line} (log: {self.log})",
            hint=found.remedy,
        )

    def stop(self) -> None:
        """End the server and its children; twice is once."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.stop()

    def __repr__(self) -> str:
        return f"Server({self.manner.name!r}, {self.base_url!r}, pid={self.pid}, running={self.running})"

    def _answers(self) -> bool:
        return answers(self.host, self.port, self.manner.health, self._key)


def start(command: Sequence[str], *, env: Mapping[str, str] | None = None, host: str = LOOPBACK,
          port: int | None = None, key: str | None = None, python: str | None = None,
          log: Path | None = None, timeout: float = START_SECONDS,
          report: Callable[[Progress], None] | None = None) -> Server:  # fmt: skip
    """Start a server's command line and wait until it answers.

    It listens on loopback unless told otherwise, on a free port unless one is named, and asks for a key
    that is made up unless one is given. `python` runs it with the interpreter of another environment.
    """
    manner = manner_of(command)
    near = LOOPBACK if host in _ANYWHERE else host
    where = port or free_port(near)
    secret = key or secrets.token_urlsafe(32)
    words = [*_run_by(command, manner, python), manner.host, host, manner.port, str(where)]
    if manner.key_flag:
        words += [manner.key_flag, secret]
    world = {**(env or {}), **({manner.key_env: secret} if manner.key_env else {})}
    process = Process(words, world, log or _new_log(manner.name))
    server = Server(process, manner, near, where, secret)
    try:
        server.wait(timeout, report)
    except BaseException:
        server.stop()
        raise
    return server


def _run_by(command: Sequence[str], manner: Manner, python: str | None) -> list[str]:
    if python is None:
        return list(command)
    if command[0] == "python":
        return [python, *command[1:]]
    return [python, "-m", manner.module, *command[1:]] if manner.module else list(command)


def _new_log(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix="memserve-")) / f"{name}.log"


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][:160] if lines else ""
