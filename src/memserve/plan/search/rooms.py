"""Which backends take part in a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve.engines import backends
from memserve.engines.rules.judge import offered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memserve.plan.wishes import Wishes

room = backends.named


def plans_locally(backend: str | None) -> bool:
    """Whether the backend that is asked for, if any, runs on the user's own cards."""
    return backend is None or backends.can_plan(backend)


def asked(wishes: Wishes) -> Sequence[str]:
    """Those that a wish names; with a bare version, those that ever offered it, else the first."""
    every = backends.plannable()
    if wishes.backend is not None or wishes.engine_version is None:
        return every if wishes.backend is None else (wishes.backend,)
    return [name for name in every if _offers(name, wishes.engine_version)] or every[:1]


def _offers(name: str, version: str) -> bool:
    return any(row["version"] == version for row in offered(backends.named(name).rules))
