"""Which credentials are meant (API key, AK/SK, token, an IAM user's password), and AK/SK signatures."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from memserve.errors import AuthenticationFailed, InvalidInput, RemoteError, Unsupported
from memserve.http import Call, HttpClient, Mask, Secret, Signer, StaticKey, connect, key
from memserve.http.body import bad, parse
from memserve.http.chat import encode
from memserve.http.keys import ServerClock
from memserve.http.retry import date
from memserve_pangu.guard import Flight
from memserve_pangu.interface import Interface

log = logging.getLogger("memserve.pangu")
ALGORITHM = "SDK-HMAC-SHA256"
_BODY_LIMIT = 12 * 10**6


class Signature:
    """Signs every call with a key pair; learns the server's clock when ours is refused."""

    def __init__(self, access: str, secret: Secret, project_id: str | None, session: Secret | None) -> None:
        self._access = access
        self._secret = secret
        self._project_id = project_id
        self._session = session
        self._clock = ServerClock()

    async def sign(self, call: Call) -> Call:
        if call.body is not None and len(call.body) > _BODY_LIMIT:
            raise InvalidInput("AK/SK signing takes bodies of up to 12 MB", hint="use api_key= instead")
        added = {"Host": urlsplit(call.url).netloc, "X-Sdk-Date": _stamp(self._clock.now())}
        if self._project_id:
            added["X-Project-Id"] = self._project_id
        if self._session is not None:
            added["X-Security-Token"] = self._session.reveal()
        signed = {"Content-Type": call.headers.get("Content-Type", "application/json"), **added}
        words = authorization(call.method, call.url, signed, call.body or b"", self._access, self._secret)
        return Call(call.method, call.url, {**call.headers, **signed, "Authorization": words}, call.body)

    async def renew(self, error: AuthenticationFailed) -> bool:
        """True where the clock explains the refusal: that replay is worth one of the five failures."""
        return self._clock.learn(error)


def authorization(method: str, url: str, headers: Mapping[str, str], body: bytes, access: str,
                  secret: Secret) -> str:  # fmt: skip
    """The Authorization header of a request whose headers hold Host and X-Sdk-Date."""
    names = ";".join(sorted(name.lower() for name in headers if "_" not in name))
    request = canonical(method, url, headers, body)
    stamp = headers["X-Sdk-Date"]
    to_sign = f"{ALGORITHM}\n{stamp}\n{hashlib.sha256(request.encode()).hexdigest()}"
    made = hmac.new(secret.reveal().encode(), to_sign.encode(), hashlib.sha256).hexdigest()
    return f"{ALGORITHM} Access={access}, SignedHeaders={names}, Signature={made}"


def canonical(method: str, url: str, headers: Mapping[str, str], body: bytes) -> str:
    """The one spelling of a request that both sides sign."""
    parts = urlsplit(url)
    path = "/".join(quote(piece, safe="~") for piece in unquote(parts.path).split("/"))
    path = path if path.endswith("/") else path + "/"
    pairs = sorted(parse_qsl(parts.query, keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)
    lower = {name.lower(): value.strip() for name, value in headers.items() if "_" not in name}
    lines = "".join(f"{name}:{lower[name]}\n" for name in sorted(lower))
    names = ";".join(sorted(lower))
    return f"{method.upper()}\n{path}\n{query}\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y%m%dT%H%M%SZ")


_DAY = 24 * 3600.0
_KEPT = 0.95
"""The share of a token's life after which the next one is fetched."""
_signed: ContextVar[Token | None] = ContextVar("memserve_pangu_token", default=None)


@dataclass(frozen=True)
class Login:
    """An IAM user, and the project that the token is for."""

    user: str
    password: Secret
    domain: str
    project: str

    def body(self) -> bytes:
        """The request for a token."""
        user = {"name": self.user, "password": self.password.reveal(), "domain": {"name": self.domain}}
        identity = {"methods": ["password"], "password": {"user": user}}
        return encode({"auth": {"identity": identity, "scope": {"project": {"name": self.project}}}})


class Token:
    """One token and its end by the monotonic clock, which no clock change moves."""

    def __init__(self, value: str, seconds: float) -> None:
        now = time.monotonic()
        self.value = value
        self.renewal = now + _KEPT * seconds
        self.end = now + seconds

    def __repr__(self) -> str:
        return "Token(***)"


class TokenSigner:
    """Puts X-Auth-Token on every call."""

    def __init__(self, client: HttpClient, login: Login) -> None:
        self._client = client
        self._login = login
        self._token: Token | None = None
        self._flight: Flight[Token] = Flight()

    async def sign(self, call: Call) -> Call:
        _signed.set(None)
        token = await self._current()
        _signed.set(token)
        return Call(call.method, call.url, {**call.headers, "X-Auth-Token": token.value}, call.body)

    async def renew(self, error: AuthenticationFailed) -> bool:
        """True where the refused token was replaced; a refused password is not tried again."""
        refused = _signed.get()
        if refused is None:
            return False
        if self._token is refused:
            await self._flight.join(self._fetch)
        return True

    def close(self) -> None:
        """Close the connections to IAM."""
        self._client.close()

    async def _current(self) -> Token:
        token = self._token
        if token is not None and time.monotonic() < token.renewal:
            return token
        try:
            return await self._flight.join(self._fetch)
        except RemoteError as error:
            if token is None or not error.retryable or time.monotonic() >= token.end:
                raise
            log.warning("the IAM token could not be renewed yet and is used to its end: %s", error.message)
            return token

    async def _fetch(self) -> Token:
        call = self._client.call(self._client.address.url("v3/auth/tokens"), self._login.body())
        self._token = await self._client.fetch(call, self._read)
        return self._token

    def _read(self, words: str, headers: Mapping[str, str]) -> Token:
        value = headers.get("x-subject-token", "").strip()
        if not value:
            raise bad("IAM's answer has no X-Subject-Token header")
        self._client.mask.add(value)
        return Token(value, _lifetime(words, headers))


def _lifetime(words: str, headers: Mapping[str, str]) -> float:
    """Seconds that the token lives, measured by the server's own clock."""
    found = parse(words) if words.strip() else {}
    facts = found.get("token") if isinstance(found, dict) else None
    end = _moment(facts.get("expires_at") if isinstance(facts, dict) else None)
    start = date(headers.get("date", ""))
    if end is None:
        return _DAY
    return min(_DAY, max(1.0, end - (time.time() if start is None else start)))


def _moment(value: Any) -> float | None:
    try:
        found = datetime.fromisoformat(str(value)[:19])
    except ValueError:
        return None
    return found.replace(tzinfo=timezone.utc).timestamp()


OPTIONS = (
    "app_code", "ak", "sk", "security_token", "token", "user", "password", "domain", "project", "iam_url",
)  # fmt: skip
_GROUPS = (("api_key", "app_code"), ("ak", "sk"), ("token",), ("user", "password", "domain"))
_VARIABLES = {
    "api_key": "PANGU_API_KEY", "app_code": "PANGU_APP_CODE", "ak": "HUAWEICLOUD_SDK_AK",
    "sk": "HUAWEICLOUD_SDK_SK", "security_token": "HUAWEICLOUD_SDK_SECURITY_TOKEN",
    "token": "PANGU_AUTH_TOKEN", "user": "PANGU_IAM_USER", "password": "PANGU_IAM_PASSWORD",
    "domain": "PANGU_IAM_DOMAIN", "iam_url": "HUAWEICLOUD_SDK_IAM_ENDPOINT",
}  # fmt: skip
_WAYS = {"api_key": "api_key", "ak": "signature", "token": "token", "user": "token"}


@dataclass(frozen=True)
class Credentials:
    """The one group of credentials that was given, with its names as in the options."""

    kind: str
    values: Mapping[str, Secret]

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown; user and account names may."""
        return tuple(
            value.reveal() for name, value in self.values.items() if name not in ("user", "domain", "ak")
        )


def find(options: Mapping[str, Any], interface: Interface) -> Credentials:
    """What the caller gave, else what the environment holds."""
    given = [group for group in _GROUPS if any(options.get(name) is not None for name in group)]
    if len(given) > 1:
        first, second = given[0][0], given[1][0]
        raise InvalidInput(f"give one kind of credentials, not both {first} and {second}")
    groups = given or [g for g in _GROUPS if _WAYS[g[0]] in interface.ways and _in_environment(g)]
    if not groups:
        raise InvalidInput(
            "Pangu needs credentials",
            hint="pass api_key=, ak= and sk=, or user=, password= and domain=, or set PANGU_API_KEY",
        )
    group = groups[0]
    if _WAYS[group[0]] not in interface.ways:
        raise Unsupported("pangu", f"{group[0]} with api={interface.name!r}", "it takes an API key alone")
    return Credentials(group[0], _values(group, options))


def _in_environment(group: tuple[str, ...]) -> bool:
    return any(os.environ.get(_VARIABLES[name]) for name in group)


def _values(group: tuple[str, ...], options: Mapping[str, Any]) -> dict[str, Secret]:
    names = (*group, "security_token") if group[0] == "ak" else group
    found = {name: key(options.get(name), _VARIABLES[name]) for name in names}
    values = {name: secret for name, secret in found.items() if secret is not None}
    lacking = [name for name in group if name not in values]
    if lacking and group[0] != "api_key":
        raise InvalidInput(f"{group[0]}= needs {' and '.join(f'{name}=' for name in lacking)} as well")
    return values


def signer(found: Credentials, interface: Interface, region: str, project_id: str | None,
           options: Mapping[str, Any], mask: Mask) -> Signer:  # fmt: skip
    """What puts these credentials on a call."""
    values = found.values
    if found.kind == "ak":
        return Signature(values["ak"].reveal(), values["sk"], project_id, values.get("security_token"))
    if found.kind == "user":
        return _login(values, region, options, mask)
    if found.kind == "token":
        return StaticKey({"X-Auth-Token": values["token"]})
    secret = values["app_code"] if "app_code" in values else values["api_key"]
    if interface.name == "v1" or ("app_code" in values and interface.name != "v2"):
        return StaticKey({"X-Apig-AppCode": secret})
    return StaticKey({"Authorization": Secret(f"Bearer {secret.reveal()}")})


def _login(values: Mapping[str, Secret], region: str, options: Mapping[str, Any], mask: Mask) -> Signer:

    where = options.get("iam_url") or os.environ.get(_VARIABLES["iam_url"])
    where = where or f"https://iam.{region}.myhuaweicloud.com"
    once = {**options, "max_retries": 0}  # the one retry layer is that of the call which wants the token
    client = connect(where, StaticKey({}), once, mask=mask, success=201)
    user, domain = values["user"].reveal(), values["domain"].reveal()
    return TokenSigner(client, Login(user, values["password"], domain, options.get("project") or region))
