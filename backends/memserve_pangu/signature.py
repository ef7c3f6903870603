"""AK/SK signatures: SDK-HMAC-SHA256, as Huawei's own SDK makes them."""

import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from memserve.errors import AuthenticationFailed, InvalidInput
from memserve.http import Call, Secret

log = logging.getLogger("memserve.pangu")
ALGORITHM = "SDK-HMAC-SHA256"
_BODY_LIMIT = 12 * 10**6
_SKEW_SECONDS = 60.0


class Signature:
    """Signs every call with a key pair; learns the server's clock when ours is refused."""

    def __init__(self, access: str, secret: Secret, project_id: str | None, session: Secret | None) -> None:
        self._access = access
        self._secret = secret
        self._project_id = project_id
        self._session = session
        self._offset = 0.0

    async def sign(self, call: Call) -> Call:
        if call.body is not None and len(call.body) > _BODY_LIMIT:
            raise InvalidInput("AK/SK signing takes bodies of up to 12 MB", hint="use api_key= instead")
        added = {"Host": urlsplit(call.url).netloc, "X-Sdk-Date": _stamp(time.time() + self._offset)}
        if self._project_id:
            added["X-Project-Id"] = self._project_id
        if self._session is not None:
            added["X-Security-Token"] = self._session.reveal()
        signed = {"Content-Type": call.headers.get("Content-Type", "application/json"), **added}
        words = authorization(call.method, call.url, signed, call.body or b"", self._access, self._secret)
        return Call(call.method, call.url, {**call.headers, **signed, "Authorization": words}, call.body)

    async def renew(self, error: AuthenticationFailed) -> bool:
        """True where the clock explains the refusal: that replay is worth one of the five failures."""
        if error.server_time is None:
            return False
        offset = error.server_time - time.time()
        if abs(offset - self._offset) < _SKEW_SECONDS:
            return False
        log.warning("this machine's clock differs from the server's by %.0f s; the server's is used", offset)
        self._offset = offset
        return True


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
