"""Where a key comes from, how a call gets it, and what is done when it is refused."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from memserve.errors import AuthenticationFailed, InvalidInput
from memserve.http.client import Signer
from memserve.http.secret import Mask, Secret
from memserve.http.transport import Call
from memserve.shell import is_sign

_log = logging.getLogger("memserve.http")


class ServerClock:
    """The time by which a server judges signatures: this machine's, until a refusal tells another."""

    _APART_SECONDS = 60.0

    def __init__(self) -> None:
        self._offset = 0.0

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self._offset

    def learn(self, error: AuthenticationFailed) -> bool:
        """True where the clock explains the refusal."""
        if error.server_time is None:
            return False
        offset = error.server_time - time.time()
        if abs(offset - self._offset) < self._APART_SECONDS:
            return False
        _log.warning("this machine's clock differs from the server's by %.0f s; the server's is used", offset)
        self._offset = offset
        return True


class StaticKey:
    """Credentials that are the same for every call: header names and secret values."""

    def __init__(self, headers: Mapping[str, Secret]) -> None:
        self._headers = headers

    @property
    def has_keys(self) -> bool:
        """Whether there is anything to keep secret."""
        return bool(self._headers)

    async def sign(self, call: Call) -> Call:
        headers = {**call.headers, **{name: secret.reveal() for name, secret in self._headers.items()}}
        return Call(call.method, call.url, headers, call.body)

    async def renew(self, error: AuthenticationFailed) -> bool:
        return False


class KeySource:
    """A command or a file that tells a key, and the key that it told last."""

    _SECONDS = 60.0
    _LARGEST = 2**16

    def __init__(self, command: str | Sequence[str] | None, file: str | os.PathLike[str] | None) -> None:
        if command is not None and file is not None:
            raise InvalidInput("key_command= and key_file= are two places for one key: leave one out")
        self._words = [] if command is None else _command(command)
        self._file = file
        self._lock = threading.Lock()
        self.secret = self._read()

    def replace(self, refused: Secret) -> bool:
        """After a refusal: True where there is another key by now."""
        with self._lock:
            if self.secret is refused:
                try:
                    found = self._read()
                except InvalidInput as broken:
                    _log.warning("the key was refused, and there is no other: %s", broken)
                    return False
                if found.reveal() == refused.reveal():
                    return False
                self.secret = found
            return True

    def _read(self) -> Secret:
        said = self._told() if self._words else self._filed()
        try:
            found = key(said.decode("ascii", "replace"))
        except InvalidInput:
            raise InvalidInput(f"{self._shown} tells more than a key: one line of ASCII is one") from None
        if found is None:
            raise InvalidInput(f"{self._shown} tells no key")
        return found

    @property
    def _shown(self) -> str:
        """Without the command's arguments, which may be secrets themselves."""
        return f"key_command ({self._words[0]})" if self._words else f"key_file ({self._file})"

    def _filed(self) -> bytes:
        try:
            with Path(self._file or "").expanduser().open("rb") as source:
                return source.read(self._LARGEST)
        except (OSError, ValueError, RuntimeError) as broken:
            raise InvalidInput(f"{self._shown} cannot be read: {broken}") from None

    def _told(self) -> bytes:
        """What the command prints; it and all that it started end with the time limit."""
        import signal
        import subprocess

        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        try:
            process = subprocess.Popen(
                self._words, stdin=nothing, stdout=pipe, stderr=nothing, start_new_session=True
            )
        except (OSError, ValueError) as broken:
            raise InvalidInput(f"{self._shown} cannot be run: {type(broken).__name__}") from None

        def end() -> None:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()

        timer = threading.Timer(self._SECONDS, end)
        timer.start()
        try:
            assert process.stdout is not None
            said = process.stdout.read(self._LARGEST)
            endless = len(said) == self._LARGEST
            if endless:
                end()
            code = process.wait() and not endless
        finally:
            timer.cancel()
            process.stdout.close()  # type: ignore[union-attr]
        if code:
            ended = process.returncode > 0
            why = f"ended with {process.returncode}" if ended else f"did not end within {self._SECONDS:g} s"
            raise InvalidInput(f"{self._shown} {why}", hint="run it by hand to see what it says")
        return said


def _command(given: object) -> list[str]:
    """A command's words. No shell reads them: what one would do with its signs is refused."""
    try:
        words = shlex.split(given) if isinstance(given, str) else given
    except ValueError as broken:
        raise InvalidInput(f"key_command= is not read as words of a shell: {broken}") from None
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        raise InvalidInput(f"key_command= is a line or a list of words, not {type(given).__name__}")
    if not words:
        raise InvalidInput("key_command= is empty")
    sign = next(filter(is_sign, words), None) if isinstance(given, str) else None
    if sign is not None:
        raise InvalidInput(f"key_command= holds the shell's {sign!r}", hint="sh -c '...' for a shell's line")
    return list(words)


_used: ContextVar[Secret | None] = ContextVar("memserve_key", default=None)


class Renewing:
    """A signer whose key is asked for anew when it is refused."""

    def __init__(self, inner: Signer, source: KeySource, mask: Mask) -> None:
        self._inner, self._source, self._mask = inner, source, mask
        self._first = source.secret.reveal()
        mask.add(self._first)

    async def sign(self, call: Call) -> Call:
        signed, secret = await self._inner.sign(call), self._source.secret
        _used.set(secret)
        now = secret.reveal()
        if now == self._first:
            return signed
        self._mask.add(now)
        ends = (self._first, f" {self._first}")
        headers = {
            name: value[: -len(self._first)] + now if value == ends[0] or value.endswith(ends[1]) else value
            for name, value in signed.headers.items()
        }  # fmt: skip
        return replace(signed, headers=headers)

    async def renew(self, error: AuthenticationFailed) -> bool:
        if await self._inner.renew(error):
            return True
        used = _used.get()
        return used is not None and await asyncio.to_thread(self._source.replace, used)


def sourced(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the key that a command or a file tells; beside cert_file, key_file is its key."""
    command, given = options.get("key_command"), options.get("api_key")
    file = None if options.get("cert_file") else options.get("key_file")
    if command is None and file is None:
        return dict(options)
    if given is not None:
        raise InvalidInput("api_key= is given beside key_command= or key_file=: leave one out")
    source = KeySource(command, file)
    return {**options, "api_key": source.secret, "key_command": source}


def carried(headers: Any) -> dict[str, Secret]:
    """Headers of the caller's, which may be keys."""
    if headers is None:
        return {}
    if not isinstance(headers, Mapping) or not all(
        isinstance(word, str) and word and word.isprintable() for pair in headers.items() for word in pair
    ):
        raise InvalidInput("headers is a mapping of names to texts of one line")
    return {name: Secret(value) for name, value in headers.items()}


def key(given: str | Secret | None, *variables: str) -> Secret | None:
    """The key that was given, or the first of these environment variables that is set."""
    if isinstance(given, Secret):
        return given
    if given is not None and not isinstance(given, str):
        raise InvalidInput(f"api_key is a string, not {type(given).__name__}")
    found = (
        given if given is not None else next((os.environ[v] for v in variables if os.environ.get(v)), None)
    )
    clean = (found or "").strip()
    if not clean:
        return None
    if not clean.isascii() or not clean.isprintable():
        raise InvalidInput("the api_key holds characters that no header can carry")
    return Secret(clean)
