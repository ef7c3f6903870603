"""Which credentials are meant: an API key, an AK/SK pair, a token, or an IAM user's password."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.http import Mask, Secret, Signer, StaticKey, connect, key
from memserve_pangu.interface import Interface

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
        from memserve_pangu.signature import Signature

        return Signature(values["ak"].reveal(), values["sk"], project_id, values.get("security_token"))
    if found.kind == "user":
        return _login(values, region, options, mask)
    if found.kind == "token":
        return StaticKey({"X-Auth-Token": values["token"]})
    secret = values["app_code"] if "app_code" in values else values["api_key"]
    if interface.name == "v2":
        return StaticKey({"Authorization": Secret(f"Bearer {secret.reveal()}")})
    return StaticKey({"X-Apig-AppCode": secret})


def _login(values: Mapping[str, Secret], region: str, options: Mapping[str, Any], mask: Mask) -> Signer:
    from memserve_pangu.iam import Login, TokenSigner

    where = options.get("iam_url") or os.environ.get(_VARIABLES["iam_url"])
    where = where or f"https://iam.{region}.myhuaweicloud.com"
    once = {**options, "max_retries": 0}  # the one retry layer is that of the call which wants the token
    client = connect(where, StaticKey({}), once, mask=mask, success=201)
    user, domain = values["user"].reveal(), values["domain"].reveal()
    return TokenSigner(client, Login(user, values["password"], domain, options.get("project") or region))
