"""One of the interfaces of Pangu and of ModelArts' services: a row of interfaces.json."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from memserve import files
from memserve.errors import InvalidInput, UnknownName
from memserve.http.address import parse
from memserve.protocol import Capabilities

EXTRA = "pangu_"


@dataclass(frozen=True)
class Interface:
    """What one interface takes; see interfaces.json."""

    name: str
    ways: tuple[str, ...]
    message: str
    """Where a chunk of its stream keeps what is new."""
    model: bool
    """The body names the model; otherwise the deployment in the path does."""
    raw: bool
    n: int
    stop: bool
    tools: bool
    max_temperature: float
    extras: tuple[str, ...]
    chat: bool = True
    sampling: bool = False
    """It takes top_k and a seed."""


@cache
def interfaces() -> dict[str, Interface]:
    """Every interface by its name."""
    rows = files.table(__file__, "interfaces.json")["interfaces"]
    return {row["name"]: _interface(row) for row in rows}


def _interface(row: Mapping[str, Any]) -> Interface:
    values = {key: value for key, value in row.items() if key != "source"}
    return Interface(**{**values, "ways": tuple(row["ways"]), "extras": tuple(row["extras"])})


def capabilities(interface: Interface, model: str | None) -> Capabilities:
    """What the interface can do."""
    return Capabilities(
        backend="pangu", engine=interface.name, model=model, chat=interface.chat, temperature=True,
        top_p=True, max_tokens=True, usage=True, raw=interface.raw, tools=interface.tools,
        stop=interface.stop, max_temperature=interface.max_temperature, n=interface.n > 1,
        max_n=interface.n, stream=True,
        extras=frozenset(EXTRA + name for name in interface.extras), cancel=True,
        top_k=interface.sampling, seed=interface.sampling,
    )  # fmt: skip


_HOST = "https://pangu.{region}.myhuaweicloud.com"
_DEPLOYMENTS = "/deployments/"
_CHAT = "/chat/completions"
_INFERS = re.compile(r"/v1/infers/[^/]+(?:/generate|/infer)?")
"""A service of its own body; below its /v1 lie the other two interfaces."""


@dataclass(frozen=True)
class Route:
    """An interface and its address; chat and text completions lie below it."""

    interface: Interface
    base_url: str


def choose(api: str | None, base_url: str | None, region: str, project_id: str | None,
           deployment_id: str | None) -> Route:  # fmt: skip
    """The route that the options mean, or an error that names what is missing."""
    path = parse(base_url).path.removesuffix(_CHAT) if base_url else ""
    own = "inputs" if _INFERS.fullmatch(path) else "modelarts" if path.startswith("/v1/infers/") else "v2"
    name = api or ("v1" if deployment_id or _DEPLOYMENTS in path or not base_url else own)
    known = interfaces()
    if name not in known:
        raise UnknownName(f"unknown api {name!r}: known are {', '.join(known)}", suggestions=tuple(known))
    if name == "inputs" and base_url:
        return Route(known[name], base_url)
    if name != "v1":
        return Route(known[name], _second(base_url))
    return Route(known[name], _first(base_url or _HOST.format(region=region), project_id, deployment_id))


def _first(base_url: str, project_id: str | None, deployment_id: str | None) -> str:
    bare = base_url.rstrip("/").removesuffix(_CHAT)
    if _DEPLOYMENTS in bare:
        return bare
    if not project_id or not deployment_id:
        lacking = "project_id" if not project_id else "deployment_id"
        raise InvalidInput(
            f"Pangu's V1 needs {lacking}=", hint="its console shows it; for the OpenAI format pass base_url="
        )
    place = f"{quote(project_id, safe='')}{_DEPLOYMENTS}{quote(deployment_id, safe='')}"
    return f"{bare.removesuffix('/v1')}/v1/{place}"


def _second(base_url: str | None) -> str:
    if not base_url:
        raise InvalidInput(
            "every interface of Pangu's but V1 needs base_url=",
            hint="its console shows it: https://HOST/api/v2",
        )
    bare = base_url.rstrip("/").removesuffix(_CHAT)
    return bare if parse(bare).path else f"{bare}/api/v2"
