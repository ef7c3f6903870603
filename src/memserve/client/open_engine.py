"""Finds the backend that was asked for and opens its engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from memserve import registry
from memserve.errors import BackendMissing, InvalidInput, Unsupported
from memserve.protocol import SupportsPlanOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.protocol import Backend, Engine, Task

EMBEDDED = "embedded"
"""The entry point that answers when no backend is named: a model that runs in this process."""


@runtime_checkable
class Planned(Protocol):
    """A Plan, of which only its `to_dict` is asked."""

    def to_dict(self) -> dict[str, Any]: ...


def open_engine(model_or_plan: object, backend: str | None, task: Task,
                options: Mapping[str, Any]) -> Engine:  # fmt: skip
    """An engine for one task, from a model's name, a Plan, or nothing (the embedded default)."""
    if model_or_plan is None or isinstance(model_or_plan, str):
        found = _find(backend)
        _can(found, backend or EMBEDDED, task)
        return found.open(model_or_plan, task=task, **options)
    if isinstance(model_or_plan, os.PathLike):
        return open_engine(os.fspath(model_or_plan), backend, task, options)
    return _open_plan(model_or_plan, backend, task, options)


def _find(name: str | None) -> Backend:
    wanted = name or EMBEDDED
    if wanted == EMBEDDED and EMBEDDED not in registry.names():
        remedy = "pip install \"memserve[embedded]\", or name a backend: backend='openai'"
        raise BackendMissing(EMBEDDED, needs="a model that runs in this process", install=remedy)
    return registry.find(wanted)


def _can(found: Backend, name: str, task: Task) -> None:
    if task not in found.capabilities.tasks:
        raise Unsupported(name, f"the task {task}")


def _open_plan(plan: object, backend: str | None, task: Task, options: Mapping[str, Any]) -> Engine:
    if not isinstance(plan, Planned):
        raise InvalidInput(f"a model is a name, a folder or a Plan, not {type(plan).__name__}")
    facts = plan.to_dict()
    choice = facts.get("plan") or facts
    name = backend or choice["backend"]
    found = _find(name)
    _can(found, name, task)
    planned = dict(found.plan_options(facts)) if isinstance(found, SupportsPlanOptions) else {}
    model = planned.pop("model", None) or choice.get("checkpoint") or facts["model"]["id"]
    return found.open(model, task=task, **{**planned, **options})
