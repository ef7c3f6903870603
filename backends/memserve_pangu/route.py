"""Which interface is meant, and at which address."""

from dataclasses import dataclass
from urllib.parse import quote

from memserve.errors import InvalidInput, UnknownName, Unsupported
from memserve.http.address import parse
from memserve_pangu.interface import Interface, interfaces

_HOST = "https://pangu.{region}.myhuaweicloud.com"
_DEPLOYMENTS = "/deployments/"
_CHAT = "/chat/completions"
_LEGACY = "/v1/infers/"


@dataclass(frozen=True)
class Route:
    """An interface and its address; chat and text completions lie below it."""

    interface: Interface
    base_url: str


def choose(api: str | None, base_url: str | None, region: str, project_id: str | None,
           deployment_id: str | None) -> Route:  # fmt: skip
    """The route that the options mean, or an error that names what is missing."""
    path = parse(base_url).path.removesuffix(_CHAT) if base_url else ""
    name = api or ("v1" if deployment_id or _DEPLOYMENTS in path or not base_url else "v2")
    if name == "legacy" or _is_legacy(path):
        raise Unsupported(
            "pangu", "the legacy inputs/parameters endpoint (/v1/infers/{id})",
            hint="use /v1/infers/{id}/v1 with api='v2', or the deployment's chat/completions",
        )  # fmt: skip
    known = interfaces()
    if name not in known:
        raise UnknownName(f"unknown api {name!r}: known are {', '.join(known)}", suggestions=tuple(known))
    if name == "v2":
        return Route(known[name], _second(base_url))
    return Route(known[name], _first(base_url or _HOST.format(region=region), project_id, deployment_id))


def _is_legacy(path: str) -> bool:
    """True for /v1/infers/{id} itself; below it lie the two interfaces that are spoken."""
    return path.startswith(_LEGACY) and "/" not in path.removeprefix(_LEGACY)


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
            "Pangu's V2 (OpenAI format) needs base_url=", hint="its console shows it: https://HOST/api/v2"
        )
    bare = base_url.rstrip("/").removesuffix(_CHAT)
    return bare if parse(bare).path else f"{bare}/api/v2"
