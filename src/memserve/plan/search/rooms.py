"""The rooms that take part in a plan: those that know rules, memory and launch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import memserve.registry as registry
from memserve.engines import installed
from memserve.engines.rules.judge import offered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memserve.engines.backend import Plannable
    from memserve.plan.query import Query


def room(name: str) -> Plannable:
    """The room of that name; `UnknownName` if there is none."""
    return cast("Plannable", registry.find(name))


def plannable(backend: Any) -> bool:
    """Whether a backend, ours or a stranger's, can be planned with on the user's own cards."""
    known = all(hasattr(type(backend), part) for part in ("rules", "memory", "launch"))
    return known and isinstance(backend.rules, Mapping) and "versions" in backend.rules


def local() -> list[str]:
    """Every plannable room, the most trusted first."""
    found = [
        name for name in registry.names() if installed.may(name, "rules") and plannable(registry.find(name))
    ]
    return sorted(found, key=lambda name: (room(name).rules.get("rank", 9), name))


def plans_locally(backend: str | None) -> bool:
    """Whether the backend that is asked for, if any, runs on the user's own cards."""
    return backend is None or (installed.may(backend, "rules") and plannable(registry.find(backend)))


def asked(query: Query) -> Sequence[str]:
    """The backends that a query names; with a bare engine version, those that ever offered it, else vLLM."""
    if query.backend is not None:
        return (query.backend,)
    if query.engine_version is None:
        return local()
    return [name for name in local() if _offers(name, query.engine_version)] or ["vllm"]


def _offers(name: str, version: str) -> bool:
    return any(row["version"] == version for row in offered(room(name).rules))
