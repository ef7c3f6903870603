"""Where a server is: loopback never behind a proxy."""

from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from memserve.errors import InvalidInput

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
        """The URL of a route below the base path (or none); one that begins with / stands beside /v1."""
        below = f"{self.path}/{route}" if route else self.path
        path = self.path.removesuffix("/v1") + route if route.startswith("/") else below
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
