"""IAM tokens: fetched once, kept for most of their 24 hours, fetched anew once when one is refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from memserve.errors import AuthenticationFailed, RemoteError
from memserve.http import Call, HttpClient, Secret
from memserve.http.body import bad, parse
from memserve.http.chat import encode
from memserve.http.delay import date
from memserve_pangu.flight import Flight

log = logging.getLogger("memserve.pangu")
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
