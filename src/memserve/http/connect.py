"""Builds the client of one server from the options that every HTTP backend takes."""

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
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memserve.errors import AuthenticationFailed, InvalidInput, Unsupported
from memserve.http import address as addresses
from memserve.http.address import Address
from memserve.http.client import HttpClient, Signer
from memserve.http.failure import SHARED, KnownErrors
from memserve.http.secret import Mask, Secret
from memserve.http.transport import Call, Limits, Transport

if TYPE_CHECKING:
    import ssl

_LIMITS = {
    "timeout": "timeout", "max_retries": "max_retries", "first_byte_timeout": "first_byte",
    "idle_timeout": "idle", "connect_timeout": "connect", "startup_timeout": "startup",
    "max_wait": "max_wait",
}  # fmt: skip
OPTIONS = frozenset({*_LIMITS, "http_client", "ca_file", "cert_file", "key_file", "key_command"})
"""What every HTTP backend takes beside base_url and api_key."""


_log = logging.getLogger("memserve.http")
_warned: set[str] = set()


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
        try:
            self._words = shlex.split(command) if isinstance(command, str) else list(command or ())
        except ValueError as broken:
            raise InvalidInput(f"key_command= is not read as words of a shell: {broken}") from None
        if command is not None and not self._words:
            raise InvalidInput("key_command= is empty")
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


def connect(base_url: str, signer: Signer, options: Mapping[str, Any], *, mask: Mask,
            errors: KnownErrors = SHARED, health: str = "/health",
            success: int = 200) -> HttpClient:  # fmt: skip
    """The client of the server at `base_url`; `options` may hold any of OPTIONS.

    `errors` is the backend's own reading of failures; `success` is the status that is an answer.
    """
    address = addresses.parse(base_url)
    mask.add(*address.secrets)
    _warn_of_plain_text(address, signer)
    limits = Limits(**{_LIMITS[n]: _number(options[n]) for n in _LIMITS if options.get(n) is not None})
    proxy = addresses.proxy_for(address)
    mask.add(*addresses.credentials(urlsplit(proxy or "")))
    transport = _transport(address, proxy, limits, options)
    source = options.get("key_command")
    signer = Renewing(signer, source, mask) if isinstance(source, KeySource) else signer
    return HttpClient(address, signer, transport, limits, mask, errors, health, success)


def _warn_of_plain_text(address: addresses.Address, signer: Signer) -> None:
    """Once for each server: whoever stands on the way reads the key."""
    carries = bool(address.authorization) or (isinstance(signer, StaticKey) and signer.has_keys)
    if carries and not (address.tls or address.loopback or address.origin in _warned):
        _warned.add(address.origin)
        _log.warning("the key for %s travels over plain http: use https, or a tunnel", address.origin)


def refuse_rest(backend: str, options: Mapping[str, Any], *taken: str) -> None:
    """Raise Unsupported for an option that neither the backend nor this layer takes."""
    for name in options:
        if name not in OPTIONS and name not in taken:
            near = get_close_matches(name, [*OPTIONS, *taken, "base_url", "api_key"], n=1)
            raise Unsupported(backend, name, f"did you mean {near[0]}?" if near else "no such option")


def _number(value: Any) -> Any:
    """An option from a command line comes as a string; what is no number is left for Limits to refuse."""
    if not isinstance(value, str):
        return value
    try:
        return int(value) if value.isdigit() else float(value)
    except ValueError:
        return value


def _transport(address: Address, proxy: str | None, limits: Limits, options: Mapping[str, Any]) -> Transport:
    handed = options.get("http_client")
    if handed is not None:
        from memserve.http.httpx_transport import transport_for

        return transport_for(handed, limits.timeout)
    from memserve.http.aiohttp_transport import AioTransport

    tls = _tls(options) if address.tls else None
    return AioTransport(
        tls=tls, proxy=proxy, connect=min(limits.connect, limits.timeout), stuck=max(1.0, limits.timeout)
    )


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    """A context that verifies. Python reads SSL_CERT_FILE and SSL_CERT_DIR when it is made."""
    import ssl

    try:
        context = ssl.create_default_context(cafile=options.get("ca_file"))
        if options.get("cert_file"):
            context.load_cert_chain(options["cert_file"], options.get("key_file"))
    except (OSError, ssl.SSLError) as broken:
        raise InvalidInput(f"the certificate files cannot be read: {broken}") from None
    return context
