"""Which backends take part in a plan."""

from collections.abc import Sequence

from memserve.engines import installed
from memserve.engines.rules.judge import offered
from memserve.plan.query import Query


def plans_locally(backend: str | None) -> bool:
    """Whether the backend that is asked for, if any, runs on the user's own cards."""
    return backend is None or installed.can_plan(backend)


def asked(query: Query) -> Sequence[str]:
    """Those that a query names; with a bare version, those that ever offered it, else the first."""
    every = installed.plannable()
    if query.backend is not None or query.engine_version is None:
        return every if query.backend is None else (query.backend,)
    return [name for name in every if _offers(name, query.engine_version)] or every[:1]


def _offers(name: str, version: str) -> bool:
    return any(row["version"] == version for row in offered(installed.named(name).rules))
