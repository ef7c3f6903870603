"""Finds the backend that was asked for and opens its engine."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

from memserve import registry
from memserve.errors import BackendMissing, InvalidInput, Unsupported
from memserve.extras import install_line
from memserve.protocol import Backend, Engine, SupportsPlanOptions, Task


@runtime_checkable
class Planned(Protocol):
    """A Plan, of which only its `to_dict` is asked."""

    def to_dict(self) -> dict[str, Any]: ...


def open_engine(model_or_plan: object, backend: str | None, task: Task,
                options: Mapping[str, Any]) -> Engine:  # fmt: skip
    """An engine for one task, from a model's name, a Plan, or nothing (the embedded default)."""
    if model_or_plan is None or isinstance(model_or_plan, str):
        name = backend or _default()
        return _can(name, task).open(model_or_plan, task=task, **options)
    if isinstance(model_or_plan, os.PathLike):
        return open_engine(os.fspath(model_or_plan), backend, task, options)
    return _open_plan(model_or_plan, backend, task, options)


def _default() -> str:
    """The backend that says of itself that it answers when none is named."""
    for name in registry.names():
        with suppress(Exception):  # what does not load answers for nobody
            if getattr(registry.find(name), "default", False):
                return name
    remedy = f"{install_line('embedded')}, or name a backend: backend='NAME'"
    raise BackendMissing("default", needs="a model that runs in this process", install=remedy)


def _can(name: str, task: Task) -> Backend:
    """The backend of that name, if it can do the task."""
    found = registry.find(name)
    if task not in found.capabilities.tasks:
        raise Unsupported(name, f"the task {task}")
    return found


def _open_plan(plan: object, backend: str | None, task: Task, options: Mapping[str, Any]) -> Engine:
    if not isinstance(plan, Planned):
        raise InvalidInput(f"a model is a name, a folder or a Plan, not {type(plan).__name__}")
    facts = plan.to_dict()
    choice = facts.get("plan") or facts
    name = backend or choice["backend"]
    found = _can(name, task)
    planned = dict(found.plan_options(facts)) if isinstance(found, SupportsPlanOptions) else {}
    model = planned.pop("model", None) or choice.get("checkpoint") or facts["model"]["id"]
    try:
        return found.open(model, task=task, **{**planned, **options})
    except BackendMissing as missing:
        if not choice.get("install") or name != choice["backend"]:
            raise
        raise BackendMissing(name, needs=missing.needs, install=choice["install"]) from missing
