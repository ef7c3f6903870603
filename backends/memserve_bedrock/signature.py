"""AWS Signature Version 4, as botocore makes it for Bedrock."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from urllib.parse import parse_qsl, quote, urlsplit

from memserve.errors import AuthenticationFailed
from memserve.http import Call, Mask
from memserve_bedrock.credential import Keys

log = logging.getLogger("memserve.bedrock")
ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "bedrock"
_SKEW_SECONDS = 60.0
_FRESH_SECONDS = 60.0


class Signature:
    """Signs every call; reads the keys anew when they are refused, and the server's clock."""

    def __init__(self, read: Callable[[], Keys], region: str, mask: Mask) -> None:
        self._read = read
        self._region = region
        self._mask = mask
        self._keys: Keys | None = None
        self._read_at = 0.0
        self._offset = 0.0

    async def sign(self, call: Call) -> Call:
        keys = await self._current()
        stamp = datetime.fromtimestamp(time.time() + self._offset, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        signed = {
            "Content-Type": call.headers.get("Content-Type", "application/json"),
            "Host": urlsplit(call.url).netloc,
            "X-Amz-Date": stamp,
        }
        if keys.session is not None:
            signed["X-Amz-Security-Token"] = keys.session.reveal()
        words = authorization(call.method, call.url, signed, call.body or b"", keys, self._region)
        return Call(call.method, call.url, {**call.headers, **signed, "Authorization": words}, call.body)

    async def renew(self, error: AuthenticationFailed) -> bool:
        """True where other keys are found by now, or where the clock explains the refusal."""
        before = self._keys
        self._keys = None
        after = await self._current()
        if before is not None and not after.same(before):
            return True
        if error.server_time is None:
            return False
        offset = error.server_time - time.time()
        if abs(offset - self._offset) < _SKEW_SECONDS:
            return False
        log.warning("this machine's clock differs from the server's by %.0f s; the server's is used", offset)
        self._offset = offset
        return True

    async def _current(self) -> Keys:
        """The keys; those that can change are read anew each minute."""
        keys = self._keys
        if keys is not None and (keys.fixed or time.monotonic() - self._read_at < _FRESH_SECONDS):
            return keys
        keys = await asyncio.to_thread(self._read)
        self._mask.add(keys.secret.reveal(), *((keys.session.reveal(),) if keys.session else ()))
        self._keys, self._read_at = keys, time.monotonic()
        return keys


def authorization(method: str, url: str, headers: Mapping[str, str], body: bytes, keys: Keys,
                  region: str) -> str:  # fmt: skip
    """The Authorization header of a request whose headers hold Host and X-Amz-Date."""
    stamp = headers["X-Amz-Date"]
    scope = f"{stamp[:8]}/{region}/{SERVICE}/aws4_request"
    names = ";".join(sorted(name.lower() for name in headers))
    request = canonical(method, url, headers, body)
    to_sign = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = b"AWS4" + keys.secret.reveal().encode()
    for word in scope.split("/"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    made = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    return f"{ALGORITHM} Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={made}"


def canonical(method: str, url: str, headers: Mapping[str, str], body: bytes) -> str:
    """The one spelling of a request that both sides sign; the path is encoded a second time."""
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe="/~")
    pairs = sorted(
        (quote(n, safe="-_.~"), quote(v, safe="-_.~"))
        for n, v in parse_qsl(parts.query, keep_blank_values=True)
    )
    query = "&".join(f"{name}={value}" for name, value in pairs)
    lower = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    lines = "".join(f"{name}:{lower[name]}\n" for name in sorted(lower))
    names = ";".join(sorted(lower))
    return f"{method.upper()}\n{path}\n{query}\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
