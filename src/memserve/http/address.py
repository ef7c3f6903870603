"""Where a server is (loopback never behind a proxy), and keys that cannot be printed."""

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from ipaddress import ip_address
from typing import NoReturn
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from memserve.errors import InvalidInput

MASK = "***"
_SHORT = 8


class Secret:
    """A key whose repr is a mask; `reveal` is for the header alone."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written down")


class Mask:
    """Replaces every known key, in any of the forms in which a server may echo it."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._pattern: re.Pattern[str] | None = None
        self._known: set[str] = set()
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Learn further keys, a fresh token for example."""
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        if forms - self._known:
            self._known |= forms
            ordered = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(_expression, ordered)), re.IGNORECASE)

    def __call__(self, text: str) -> str:
        """The text without any known key."""
        return self._pattern.sub(MASK, text) if self._pattern is not None else text

    def __repr__(self) -> str:
        return f"Mask({len(self._known)} forms)"


def _forms(secret: str) -> set[str]:
    return {secret, b64encode(secret.encode()).decode()}


def _expression(form: str) -> str:
    exact = "".join(map(_written, form))
    return exact if len(form) >= _SHORT else rf"(?<![A-Za-z0-9]){exact}(?![A-Za-z0-9])"


def _written(sign: str) -> str:
    """A sign of a key in every way of writing it: as it is, in JSON, in an address, in HTML."""
    if sign.isalnum() and sign.isascii():
        return sign
    number = ord(sign)
    ways = {sign, f"\\{sign}", quote(sign, safe=""), f"\\u{number:04x}", f"\\x{number:02x}",
            escape(sign), f"&#{number};", f"&#x{number:x};"}  # fmt: skip
    return f"(?:{'|'.join(map(re.escape, sorted(ways, key=len, reverse=True)))})"


_KEY_WORDS = ("key", "token", "secret", "password", "signature", "auth")
_NO_HOST = frozenset(' <>"{}|\\^`')


@dataclass(frozen=True)
class Address:
    """A base URL: what may be shown, and what may not."""

    origin: str
    path: str
    host: str
    query: str = field(default="", repr=False)
    authorization: str | None = field(default=None, repr=False)
    """Basic credentials that stood in the URL."""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def shown(self) -> str:
        """The URL without user, password and query."""
        return self.origin + self.path

    @property
    def loopback(self) -> bool:
        """True for this machine itself."""
        return is_loopback(self.host)

    @property
    def tls(self) -> bool:
        """True for https."""
        return self.origin.startswith("https:")

    def url(self, route: str) -> str:
        """The URL of a route below the base path; one that begins with / stands beside /v1."""
        path = self.path.removesuffix("/v1") + route if route.startswith("/") else f"{self.path}/{route}"
        return f"{self.origin}{path}{f'?{self.query}' if self.query else ''}"


def parse(base_url: str) -> Address:
    """Take a base URL apart, or raise InvalidInput."""
    if not isinstance(base_url, str):
        raise InvalidInput(f"base_url is a string, not {type(base_url).__name__}")
    try:
        parts = urlsplit(base_url.strip())
        port = parts.port
    except ValueError:
        raise InvalidInput("base_url is not a URL", hint="write http://host:port/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or _NO_HOST & set(parts.netloc):
        raise InvalidInput("base_url needs a scheme and a host", hint="write http://host:port/v1")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    origin = urlunsplit((parts.scheme, f"{host}:{port}" if port is not None else host, "", "", ""))
    secret, basic = credentials(parts)
    authorization = f"Basic {b64encode(basic.encode()).decode()}" if basic else None
    secrets = tuple(s for s in (secret, basic, *_query_secrets(parts.query)) if s)
    return Address(origin, parts.path.rstrip("/"), parts.hostname, parts.query, authorization, secrets)


def _query_secrets(query: str) -> list[str]:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return [unquote(v) for name, _, v in pairs if any(word in name.lower() for word in _KEY_WORDS)]


def is_loopback(host: str) -> bool:
    """True for localhost and for addresses of the loopback interface."""
    name = host.rstrip(".").lower().strip("[]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        found = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    return bool(mapped.is_loopback or mapped.is_unspecified)


def proxy_for(address: Address) -> str | None:
    """The proxy that the environment names for this address; none for loopback."""
    if address.loopback:
        return None
    proxies = getproxies()
    proxy = proxies.get("https" if address.tls else "http") or proxies.get("all")
    if not proxy or proxy_bypass(address.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def credentials(parts: SplitResult) -> tuple[str, str]:
    """The password (or lone user) of an address, and user and password together; "" where there is none."""
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return password or user, f"{user}:{password}" if user or password else ""


def named(base_url: str | None) -> str | None:
    """The caller's own base URL; an empty one is refused, since the key would go to the default host."""
    if base_url is not None and not base_url.strip():
        raise InvalidInput("base_url is empty", hint="leave it out for the provider's own address")
    return base_url
