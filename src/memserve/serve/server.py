"""Starts an engine's server, waits until it answers, and stops it: nothing hangs and nothing is left over."""

import http.client
import os
import re
import secrets
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from weakref import finalize

from typing_extensions import Self

from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.engines.command import masked_text
from memserve.engines.environment import fetches, inherited
from memserve.engines.server import Program
from memserve.errors import BackendMissing, EngineFailed, InvalidInput, TimedOut
from memserve.http.address import is_loopback
from memserve.serve.advice import Diagnosis, diagnose
from memserve.serve.ports import free_port, held, is_free, listener

_TAIL_BYTES = 65536
_KEY = re.compile(rb"[\w.:+/=~ -]{0,500}\r?\n?")
PATIENCE = 10.0
"""Seconds between asking and insisting: an engine that holds a card needs some to let go."""
_SPARE_SECONDS = 10.0
_KEY_FILE = "key.yaml"


class Process:
    """Started at once; `stop` asks, then insists. It ends with this process, even if that is killed."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path,
                 patience: float = PATIENCE) -> None:  # fmt: skip
        self.log = log
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), str(patience)]
        with log.open("ab") as out:
            self._guard = subprocess.Popen(
                [*guard, *command], env=dict(env), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=out, start_new_session=True,
            )  # fmt: skip
        self._end = finalize(self, _release, self._guard, 3 * patience + _SPARE_SECONDS)
        self.pid = self._first_word(command[0])

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative where a signal ended it."""
        code = self._guard.poll()
        return code if code is None or code <= 128 else 128 - code

    @property
    def unguarded(self) -> bool:
        """Whether the process between us and it was killed, and so it was ended, too."""
        return (self._guard.poll() or 0) < 0

    def tail(self) -> str:
        """The end of the log."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")

    def stop(self) -> None:
        """End the whole group; twice is once."""
        self._end()

    def _first_word(self, program: str) -> int:
        """The engine's process id, which is its group's too; or why there is none."""
        assert self._guard.stdout is not None
        with self._guard.stdout as said:
            word = said.readline().decode("utf-8", "replace").strip()
        if word.isdigit():
            return int(word)
        self.stop()
        install = "memserve serve PLAN.json makes an environment with the plan's install line"
        raise BackendMissing(program, needs=f"the program {program} ({word})", install=install)


def _release(guard: subprocess.Popen[bytes], seconds: float) -> None:
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(seconds)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()


def answers(host: str, port: int, path: str, key: str | None, *, timeout: float = 2.0) -> bool:
    """True once the path gives a 200; never asked through a proxy."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


LOOPBACK = "127.0.0.1"
START_SECONDS = 1800.0
"""Loading 400 GiB of weights from a network disk takes a quarter of an hour."""
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Progress:
    """What is known while a server starts: seconds, and the last line that it wrote."""

    seconds: float
    line: str


def check(process: Process, backend: str, key: str | None = None,
          advise: Callable[[Diagnosis], str | None] | None = None) -> None:  # fmt: skip
    """Raise in plain words if an engine's process has died."""
    code, server = process.exit_code, server_of(installed.named(backend))
    if code is None:
        return
    said = process.tail().replace(key, "***") if key else process.tail()
    found = diagnose(said, code, server.failures if server else ())
    if process.unguarded:
        raise EngineFailed(f"the process that watches over {backend} was killed; it was ended, too",
                           hint=f"start it again (log: {process.log})")  # fmt: skip
    how = f"with exit code {code}" if code >= 0 else f"of signal {-code}"
    raise EngineFailed(
        f"{backend} died {how}: {found.problem}: {masked_text(found.line)} (log: {process.log})",
        hint=(advise(found) if advise else None) or found.remedy,
    )


class Server:
    """A running server. A context manager: leaving it ends the process and all its children."""

    def __init__(self, process: Process, backend: str, program: Program, where: tuple[str, int], key: str,
                 advise: Callable[[Diagnosis], str | None] | None = None) -> None:  # fmt: skip
        self._process, self.backend, self.program = process, backend, program
        self.host, self.port = where
        self._key, self._advise = key, advise

    @property
    def base_url(self) -> str:
        """Where its OpenAI-style routes begin."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.program.api}"

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
        while not (self._answers() and self.running):
            self.check()
            if self._listener() == "another":
                raise EngineFailed(f"port {self.port} of {self.host} is held by another process",
                                   hint="start it again: another port is found. An engine in a container is "
                                        "started by itself; then pass base_url= and api_key=")  # fmt: skip
            passed = time.monotonic() - began
            if passed > seconds:
                last = _last_line(self._process.tail())
                raise TimedOut(f"the server did not answer within {seconds:.0f} s; its last line: {last}")
            if report:
                report(Progress(passed, _last_line(self._process.tail())))
            time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Raise in plain words if the server has died."""
        check(self._process, self.backend, self._key, self._advise)

    def stop(self) -> None:
        """End the server and its children; twice is once."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.stop()

    def __repr__(self) -> str:
        return f"Server({self.backend!r}, {self.base_url!r}, pid={self.pid}, running={self.running})"

    def _answers(self) -> bool:
        known = self._listener() in ("ours", "unknown")
        return known and answers(self.host, self.port, self.program.health, self._key)

    def _listener(self) -> str:
        told = (self._key, str(self.log.parent / _KEY_FILE))  # one in another session may be ours: it knows
        return listener(self._process.pid, self.host, self.port, told)


def start(command: Sequence[str], *, env: Mapping[str, str] | None = None, host: str = LOOPBACK,
          port: int | None = None, key: str | None = None, python: str | None = None,
          backend: str | None = None, inherit: Collection[str] = (), log: Path | None = None,
          timeout: float = START_SECONDS,
          report: Callable[[Progress], None] | None = None,
          advise: Callable[[Diagnosis], str | None] | None = None) -> Server:  # fmt: skip
    """Start a server's command line and wait until it answers.

    It listens on loopback unless told otherwise, on a free port unless one is named, and asks for a key
    that is made up unless one is given. `python` runs it with the interpreter of another environment.
    Of our own environment it gets what it needs and no secret (`inherited`), and what `inherit` names.
    `advise` may know a better remedy for what it died of than the general one.
    """
    backend, program = installed.program_of(command, backend)
    if program.configured:
        raise InvalidInput(
            f"{backend} reads its address from its own configuration", hint="start the command itself"
        )
    near = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)
    if not program.asks_for_key and not (near == host and is_loopback(host)):
        raise InvalidInput(f"{backend}'s server asks for no key, so it is not opened on {host}",
                           hint="leave --host out, and put a proxy that asks for one before it")  # fmt: skip
    where, secret = _port(near, host, port), key or secrets.token_urlsafe(32)
    log = log or _new_log(backend)
    words = [*program.listening(run_by(command, program, python), host, where),
             *_key_words(program, command, secret, log.parent)]  # fmt: skip
    world = surroundings(backend, command, env, inherit)
    if program.key_env:
        world[program.key_env] = secret
    with held(host, where):
        server = Server(Process(words, world, log), backend, program, (near, where), secret, advise)
        try:
            server.wait(timeout, report)
        except BaseException:
            server.stop()
            raise
    return server


def _port(near: str, host: str, asked: int | None) -> int:
    if asked is None:
        return free_port(near)
    if not 0 < asked < 65536:
        raise InvalidInput(f"port {asked} is not within 1..65535")
    if not is_free(host, asked):
        raise InvalidInput(f"port {asked} of {host} is taken",
                           hint="pass another, or none: a free one is found")  # fmt: skip
    return asked


def _key_words(program: Program, command: Sequence[str], key: str, folder: Path) -> list[str]:
    """Flags for the key: in a file where the engine reads one, because every user sees arguments."""
    if not program.key_flag:
        return []
    if not program.key_config or program.key_config in command:
        return [program.key_flag, key]
    path = folder / _KEY_FILE
    private(path, f"{program.key_flag.removeprefix('--')}: {key}\n")
    return [program.key_config, str(path)]


def private(path: Path, text: str) -> None:
    """A file that only its owner can read; a link is not followed, and no more than a key is written over."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        why = "it is a link" if path.is_symlink() else error.strerror
        raise InvalidInput(f"cannot write a key to {path}: {why}", hint="name another file") from error
    with os.fdopen(handle, "r+b", buffering=0) as file:
        about = os.fstat(handle)
        if stat.S_ISREG(about.st_mode):
            held = file.read(1000)
            if about.st_nlink > 1 or not _KEY.fullmatch(held):
                raise InvalidInput(f"{path} holds something else than a key", hint="name another file")
            if held.strip() and about.st_mode & 0o077:
                raise InvalidInput(f"{path} holds a key that others can read",
                                   hint="chmod 600 it, empty it, or name another file")  # fmt: skip
            os.fchmod(handle, 0o600)
            file.seek(0)
            file.truncate()
        file.write(text.encode())


def surroundings(backend: str, command: Sequence[str], env: Mapping[str, str] | None = None,
                 inherit: Collection[str] = ()) -> dict[str, str]:  # fmt: skip
    """The variables that an engine gets: those of ours that it needs, and those of `env`."""
    facts = server_of(installed.named(backend))
    ours = inherited(facts.inherits if facts else (), downloads=fetches(command), also=inherit)
    return {**ours, **(env or {})}


def run_by(command: Sequence[str], program: Program, python: str | None) -> list[str]:
    """The command, by that interpreter."""
    if python is None:
        return list(command)
    if command[0] == "python":
        return [python, *command[1:]]
    return [python, "-m", program.module, *command[1:]] if program.module else list(command)


def _new_log(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix="memserve-")) / f"{name}.log"


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.replace("\r", "\n").splitlines() if line.strip()]
    return masked_text(lines[-1])[:160] if lines else ""
