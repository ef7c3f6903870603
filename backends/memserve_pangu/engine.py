"""Opens Pangu: the route, the credentials and the client."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from memserve import files
from memserve.errors import Unsupported
from memserve.http import Mask, Secret, connect, known_errors, refuse_rest
from memserve.http.address import named
from memserve.http.failure import Words
from memserve.protocol import Task
from memserve_pangu import credential, interface
from memserve_pangu.guard import Guard, Guarded
from memserve_pangu.interface import capabilities as capabilities_of
from memserve_pangu.interface import interfaces

_REGION = "cn-southwest-2"
_TAKEN = ("api", "region", "project_id", "deployment_id", *credential.OPTIONS)
capabilities = capabilities_of(interfaces()["v1"], None)
"""What Pangu can do through its own interface, V1."""


def open_engine(model: str | None = None, *, task: Task = "generate", base_url: str | None = None,
                api_key: str | Secret | None = None, **options: Any) -> Any:  # fmt: skip
    """An engine; nothing is sent before the first request."""
    from memserve_pangu.chat import PanguEngine

    if task != "generate":
        raise Unsupported("pangu", f"the task {task}")
    refuse_rest("pangu", options, *_TAKEN)
    region = options.get("region") or _REGION
    project_id = options.get("project_id") or os.environ.get("HUAWEICLOUD_SDK_PROJECT_ID")
    deployment_id = _deployment(model, base_url, options)
    base_url = named(base_url) or os.environ.get("PANGU_BASE_URL")
    way = interface.choose(options.get("api"), base_url, region, project_id, deployment_id)
    found = credential.find({**options, "api_key": api_key}, way.interface)
    mask = Mask(found.secrets)
    guard = Guard()
    way_in = credential.signer(found, way.interface, region, project_id, options, mask)
    signer = Guarded(way_in, guard)
    errors = known_errors(__file__, refine)
    client = connect(way.base_url, signer, options, mask=mask, errors=errors)
    return PanguEngine(client, way.interface, model or deployment_id, guard, signer)


def _deployment(model: str | None, base_url: str | None, options: Mapping[str, Any]) -> str | None:
    """The deployment that V1 asks; without one of its own the model's name is taken for it.

    A base_url alone means V2, so the environment does not turn it into V1.
    """
    own: str | None = options.get("deployment_id")
    wants_v1 = options.get("project_id") or options.get("api") == "v1"
    if own or options.get("api") == "v2" or (base_url and not wants_v1):
        return own
    elsewhere = os.environ.get("PANGU_BASE_URL") and not wants_v1
    return os.environ.get("PANGU_DEPLOYMENT_ID") or (None if elsewhere else model)


@cache
def _pauses() -> list[dict[str, Any]]:
    return list(files.table(__file__, "errors.json")["pauses"])


def refine(words: Words, headers: Mapping[str, str]) -> Words:
    """The failure with its details in the message and its pause as seconds."""
    details = words.fields.get("details")
    message = f"{words.message} {details}" if isinstance(details, str) and details else words.message
    pauses = (row["seconds"] for row in _pauses() if re.search(row["pattern"], message, re.I))
    return replace(words, message=message, wait=next(pauses, words.wait))
