"""Builds the client of one server from the options that every HTTP backend takes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from difflib import get_close_matches
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
OPTIONS = frozenset({*_LIMITS, "http_client", "ca_file", "cert_file", "key_file"})
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
