"""Builds the client of one server from the options that every HTTP backend takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memserve.errors import InvalidInput, Unsupported
from memserve.http import address as addresses
from memserve.http.address import Address
from memserve.http.client import HttpClient, Signer
from memserve.http.failure import SHARED, KnownErrors
from memserve.http.keys import KeySource, Renewing, StaticKey
from memserve.http.secret import Mask
from memserve.http.transport import Limits, Transport

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
