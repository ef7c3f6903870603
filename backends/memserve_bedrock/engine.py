"""Opens Bedrock (region, AWS keys, their signature) for vectors, or drives Converse and its stream."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from configparser import ConfigParser, Error
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from memserve.errors import AuthenticationFailed, InvalidInput, Unsupported
from memserve.http import (
    Call,
    Event,
    HttpClient,
    HttpEngine,
    Mask,
    Pieces,
    Secret,
    Signer,
    StaticKey,
    StreamReader,
    connect,
    key,
    known_errors,
    refuse_rest,
)
from memserve.http.address import named
from memserve.http.address import parse as parse_address
from memserve.http.body import counted
from memserve.http.chat import encode
from memserve.http.failure import Words
from memserve.http.keys import ServerClock
from memserve.protocol import Completion, Prompt, Request, Task
from memserve_bedrock import answer, ask
from memserve_bedrock.answer import Frame, Frames
from memserve_bedrock.ask import Model
from memserve_bedrock.ask import capabilities as capabilities_of
from memserve_bedrock.ask import model as model_of

if TYPE_CHECKING:
    from memserve_bedrock.batch import Batches

OPTIONS = ("region", "profile", "aws_access_key_id", "aws_secret_access_key", "aws_session_token",
           "batch_uri", "batch_role")  # fmt: skip
_HINT = (
    "pass aws_access_key_id= and aws_secret_access_key=, or api_key=, or set AWS_PROFILE or"
    " AWS_BEARER_TOKEN_BEDROCK; for roles and single sign-on also: pip install botocore"
)


@dataclass(frozen=True)
class Keys:
    """A key pair, and the token of a session where there is one."""

    access: str
    secret: Secret
    session: Secret | None = None
    fixed: bool = True
    """False: another reading may find others."""

    def same(self, other: Keys) -> bool:
        """True for the same keys, read once more."""
        mine, theirs = (
            (k.access, k.secret.reveal(), k.session.reveal() if k.session else None) for k in (self, other)
        )
        return mine == theirs


def reader(options: Mapping[str, Any]) -> Callable[[], Keys]:
    """What reads the keys, from the first place that has any."""
    given = _pair(options.get("aws_access_key_id"), options.get("aws_secret_access_key"),
                  options.get("aws_session_token"))  # fmt: skip
    if given is not None:
        return lambda: given
    profile = options.get("profile")
    named = None if profile else _of_environment()
    if named is not None:
        return lambda: named
    if _of_file(profile) is not None:
        return lambda: _found(_of_file(profile))
    if find_spec("botocore") is not None:
        return _borrowed(profile)
    raise InvalidInput("Bedrock needs AWS credentials", hint=_HINT)


def region(options: Mapping[str, Any], model: str, host: str) -> str | None:
    """The region that is meant; None where nothing says so."""
    named = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if named:
        return str(named)
    if model.startswith("arn:") and model.split(":")[3]:
        return model.split(":")[3]
    words = host.split(".")
    if host.startswith("bedrock-runtime.") and len(words) > 2:
        return words[1]
    found = _section(_path("AWS_CONFIG_FILE", "config"), _profile(options.get("profile")), prefix=True)
    return found.get("region")


def _pair(access: Any, secret: Any, session: Any) -> Keys | None:
    if not access and not secret:
        return None
    found, token = key(secret), key(session)
    if not isinstance(access, str) or found is None:
        raise InvalidInput("aws_access_key_id= and aws_secret_access_key= belong together")
    return Keys(access.strip(), found, token)


def _of_environment() -> Keys | None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return _pair(*(os.environ.get(name) for name in names))


def _profile(name: str | None) -> str:
    return name or os.environ.get("AWS_PROFILE") or "default"


def _path(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or f"~/.aws/{name}").expanduser()


def _section(path: Path, profile: str, *, prefix: bool = False) -> Mapping[str, str]:
    """One profile of a shared file; nothing where the file or the profile is missing."""
    table = ConfigParser(interpolation=None)
    try:
        table.read(path, encoding="utf-8")
    except (Error, UnicodeDecodeError):
        raise InvalidInput(f"{path} is not a file of AWS profiles") from None
    name = f"profile {profile}" if prefix and profile != "default" else profile
    return table[name] if table.has_section(name) else {}


def _of_file(profile: str | None) -> Keys | None:
    found = _section(_path("AWS_SHARED_CREDENTIALS_FILE", "credentials"), _profile(profile))
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    if not found.get(names[0]):
        return None
    keys = _pair(*(found.get(name) for name in names))
    return None if keys is None else Keys(keys.access, keys.secret, keys.session, fixed=False)


def _found(keys: Keys | None) -> Keys:
    if keys is None:
        raise AuthenticationFailed("the AWS profile has no keys any more", hint=_HINT)
    return keys


def _borrowed(profile: str | None) -> Callable[[], Keys]:
    """botocore's own chain: roles, single sign-on, container and instance metadata."""
    import botocore.session

    session = botocore.session.Session(profile=profile)

    def read() -> Keys:
        try:
            found = session.get_credentials()
            frozen = found.get_frozen_credentials() if found is not None else None
        except Exception as broken:  # botocore has no common root for what its providers raise
            raise AuthenticationFailed(f"botocore found no credentials: {type(broken).__name__}") from None
        if frozen is None or not frozen.access_key:
            raise AuthenticationFailed("no AWS credentials were found", hint=_HINT)
        token = Secret(frozen.token) if frozen.token else None
        return Keys(frozen.access_key, Secret(frozen.secret_key), token, fixed=False)

    return read


ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "bedrock"
_STORE = "s3"
_FRESH_SECONDS = 60.0


class Signature:
    """Signs every call; reads the keys anew when they are refused, and the server's clock."""

    def __init__(self, read: Callable[[], Keys], region: str, mask: Mask, service: str = SERVICE) -> None:
        self._service = service
        self._read = read
        self._region = region
        self._mask = mask
        self._keys: Keys | None = None
        self._read_at = 0.0
        self._clock = ServerClock()

    async def sign(self, call: Call) -> Call:
        keys = await self._current()
        stamp = datetime.fromtimestamp(self._clock.now(), timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        signed = {
            "Content-Type": call.headers.get("Content-Type", "application/json"),
            "Host": urlsplit(call.url).netloc,
            "X-Amz-Date": stamp,
        }
        if keys.session is not None:
            signed["X-Amz-Security-Token"] = keys.session.reveal()
        if self._service == _STORE:
            signed["X-Amz-Content-Sha256"] = hashlib.sha256(call.body or b"").hexdigest()
        body = call.body or b""
        words = authorization(call.method, call.url, signed, body, keys, self._region, self._service)
        return Call(call.method, call.url, {**call.headers, **signed, "Authorization": words}, call.body)

    async def renew(self, error: AuthenticationFailed) -> bool:
        """True where other keys are found by now, or where the clock explains the refusal."""
        before = self._keys
        self._keys = None
        after = await self._current()
        if before is not None and not after.same(before):
            return True
        return self._clock.learn(error)

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
                  region: str, service: str = SERVICE) -> str:  # fmt: skip
    """The Authorization header of a request whose headers hold Host and X-Amz-Date."""
    stamp = headers["X-Amz-Date"]
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    names = ";".join(sorted(name.lower() for name in headers))
    request = canonical(method, url, headers, body, twice=service != _STORE)
    to_sign = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = b"AWS4" + keys.secret.reveal().encode()
    for word in scope.split("/"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    made = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    return f"{ALGORITHM} Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={made}"


def canonical(method: str, url: str, headers: Mapping[str, str], body: bytes, *,
              twice: bool = True) -> str:  # fmt: skip
    """The one spelling of a request that both sides sign; the path is encoded a second time, but for S3."""
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe="/~" if twice else "/~%")
    pairs = sorted(
        (quote(n, safe="-_.~"), quote(v, safe="-_.~"))
        for n, v in parse_qsl(parts.query, keep_blank_values=True)
    )
    query = "&".join(f"{name}={value}" for name, value in pairs)
    lower = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    lines = "".join(f"{name}:{lower[name]}\n" for name in sorted(lower))
    names = ";".join(sorted(lower))
    return f"{method.upper()}\n{path}\n{query}\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"


class ConverseEngine(HttpEngine):
    """Asks {base_url}/model/{id}/converse; the id is a model's, an inference profile's or an ARN."""

    def __init__(
        self, client: HttpClient, model: Model, options: Mapping[str, Any], region: str | None
    ) -> None:
        super().__init__(client, capabilities_of(model))
        self._options, self._region = options, region
        self._model = model
        place = f"model/{quote(model.name or '', safe='')}"
        self._url = client.address.url(f"{place}/converse")
        self._stream_url = client.address.url(f"{place}/converse-stream")
        self._count_url = client.address.url(f"{place}/count-tokens")

    def write(self, request: Request, *, stream: bool) -> Call:
        payload = {**ask.prompt(request.prompt), **ask.settings(request, self._model)}
        return self._client.call(self._stream_url if stream else self._url, encode(payload))

    def read(self, request: Request, words: str, headers: Mapping[str, str]) -> Completion:
        return answer.completion(
            words, headers, self._model.name, lambda failed: self._client.failed(failed, 200, headers)
        )

    def reader(self, request: Request) -> StreamReader:
        return answer.ConverseReader(lambda failed: self._client.failed(failed, 200, {}))

    async def events(self, pieces: Pieces) -> AsyncIterator[Event]:
        """The frames of a stream as events."""
        frames = Frames(self._client.limits.event)
        while (chunk := await pieces.next()) is not None:
            for frame in frames.feed(chunk):
                yield _event(frame)
        frames.finish()

    @cached_property
    def batch_service(self) -> Batches:
        """Batch inference, by way of S3."""
        from memserve_bedrock.batch import opened

        return opened(self, self._options, self._region, self._client.mask)

    def close(self) -> None:
        """Close the connections."""
        super().close()
        if "batch_service" in vars(self):
            self.batch_service.close()

    async def acount_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, as the provider counts them; costs a request, and no money."""
        call = self._client.call(self._count_url, encode({"input": {"converse": ask.prompt(prompt)}}))
        return await self._client.fetch(call, counted("inputTokens"))


def _event(frame: Frame) -> Event:
    """An event by its name; a failure by its type."""
    known = frame.headers
    data = frame.payload.decode("utf-8", "replace")
    if known.get(":message-type") == "exception":
        return Event(answer.EXCEPTION + known.get(":exception-type", ""), data)
    if known.get(":message-type") == "error":
        said = encode({"message": known.get(":error-message", "")}).decode()
        return Event(answer.EXCEPTION + known.get(":error-code", ""), said)
    return Event(known.get(":event-type", ""), data)


capabilities = replace(
    capabilities_of(model_of("claude-haiku-4-5")), tasks=frozenset({"generate", "embed"}),
    roles=frozenset(role for row in ask.embedders() for role in row.get("roles", ())),
    dimensions=True, normalize=True,
)  # fmt: skip
"""What many models can do; a model's own row decides."""
_ENDPOINTS = ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL")


def open_engine(model: str | None = None, *, task: Task = "generate", base_url: str | None = None,
                api_key: str | Secret | None = None, **options: Any) -> Any:  # fmt: skip
    """An engine; nothing is sent before the first request."""

    if task not in capabilities.tasks:
        raise Unsupported("bedrock", f"the task {task}")
    if not model:
        raise InvalidInput("backend 'bedrock' needs a model's id", hint="such as amazon.nova-lite-v1:0")
    refuse_rest("bedrock", options, *OPTIONS)
    url = named(base_url) or next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    place = region(options, model, parse_address(url).host if url else "")
    mask = Mask()
    signer = _signer(api_key, options, place, mask)
    client = connect(
        url or _endpoint(place), signer, options, mask=mask, errors=known_errors(__file__, refine)
    )
    if task == "embed":
        from memserve_bedrock.embedding import EmbedEngine

        return EmbedEngine(client, model)
    return ConverseEngine(client, model_of(model), options, place)


def _endpoint(region: str | None) -> str:
    if not region:
        raise InvalidInput("Bedrock needs a region", hint="pass region= or set AWS_REGION")
    suffix = ".cn" if region.startswith("cn-") else ""
    return f"https://bedrock-runtime.{region}.amazonaws.com{suffix}"


def _signer(api_key: str | Secret | None, options: Mapping[str, Any], region: str | None,
            mask: Mask) -> Signer:  # fmt: skip
    pair = options.get("aws_access_key_id") is not None or options.get("profile") is not None
    bearer = None if pair and api_key is None else key(api_key, "AWS_BEARER_TOKEN_BEDROCK")
    if bearer is not None:
        mask.add(bearer.reveal())
        return StaticKey({"Authorization": Secret(f"Bearer {bearer.reveal()}")})
    if not region:
        raise InvalidInput("Bedrock needs a region", hint="pass region= or set AWS_REGION")

    return Signature(reader(options), region, mask)


_DAILY = re.compile(r"tokens per day|requests per day|daily", re.IGNORECASE)
_THROTTLE = "throttlingexception"


def refine(words: Words, headers: Mapping[str, str]) -> Words:
    """The failure with its bare type first: ns#Type and Type:uri are both seen."""
    stated = headers.get("x-amzn-errortype", "")
    found = (code.rpartition("#")[2].partition(":")[0] for code in (stated, *words.codes))
    types = tuple(code for code in found if code)
    daily = any(code.lower() == _THROTTLE for code in types) and _DAILY.search(words.message)
    return replace(words, codes=(*(("quota_per_day",) if daily else ()), *types), wait=_wait(words, headers))


def _wait(words: Words, headers: Mapping[str, str]) -> float | None:
    """x-amz-retry-after counts milliseconds."""
    stated = headers.get("x-amz-retry-after", "").strip()
    return int(stated) / 1000 if stated.isascii() and stated.isdigit() else words.wait
