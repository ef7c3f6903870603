"""Where AWS keys come from: options, the environment, the shared file, and botocore where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from configparser import ConfigParser, Error
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from memserve.errors import AuthenticationFailed, InvalidInput
from memserve.http import Secret, key

OPTIONS = ("region", "profile", "aws_access_key_id", "aws_secret_access_key", "aws_session_token")
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
