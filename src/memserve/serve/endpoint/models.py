"""What is served: names, and the generator, embedder or reranker behind each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from memserve import client, registry
from memserve.client.handle import Handle
from memserve.errors import InvalidInput, MemserveError, NotFound
from memserve.protocol import Task

_OPEN: dict[Task, Callable[..., Any]] = {
    "generate": client.generator, "embed": client.embedder, "rerank": client.reranker,
}  # fmt: skip
_KEYS = {"backend": {"id", "backend", "model", "task", "options"}, "route": {"id", "route", "policy"}}


@dataclass
class Models:
    """Handles by task and name."""

    handles: dict[Task, dict[str, Handle]] = field(default_factory=dict)

    def add(self, task: Task, handle: Handle, names: Sequence[str]) -> None:
        """Serve a handle under some names."""
        for name in names or [handle.capabilities.model or handle.capabilities.backend]:
            if name in self.handles.setdefault(task, {}):
                raise InvalidInput(f"two models are named {name!r}")
            self.handles[task][name] = handle
        self.__dict__.pop("rows", None)

    def find(self, task: Task, name: Any) -> tuple[str, Any]:
        """The name and the handle that a body means; it may leave out the only one's."""
        known = self.handles.get(task, {})
        if name is None and len(set(map(id, known.values()))) == 1:
            name = next(iter(known))
        if not isinstance(name, str) or name not in known:
            served = ", ".join(known) or "none"
            raise NotFound(f"no model {name!r} to {task} with", hint=f"served for this: {served}")
        return name, known[name]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """What /v1/models lists: besides OpenAI's fields the context, the task and all capabilities."""
        return [_row(name, task, handle) for task, named in self.handles.items()
                for name, handle in named.items()]  # fmt: skip

    def close(self) -> None:
        """Close every handle once."""
        for handle in {id(h): h for named in self.handles.values() for h in named.values()}.values():
            with suppress(MemserveError):
                handle.close()


def _row(name: str, task: Task, handle: Handle) -> dict[str, Any]:
    known = handle.capabilities
    told = {key: sorted(v) if isinstance(v, frozenset) else v for key, v in asdict(known).items()}
    row = {"id": name, "object": "model", "created": 0, "owned_by": "memserve", "task": task}
    return {**row, "max_model_len": known.context, "capabilities": told}


def opened(backend: str, model: str | None, names: Sequence[str], task: Task | None,
           options: Mapping[str, Any]) -> Models:  # fmt: skip
    """One model; without a task, what it is for; without a model, all that the backend does by default."""
    found = Models()
    able = registry.find(backend).capabilities.tasks
    order = [one for one in cast("tuple[Task, ...]", ("generate", "embed", "rerank")) if one in able]
    refused: list[MemserveError] = []
    for one in [task] if task else order:
        try:
            found.add(one, _OPEN[one](model, backend=backend, **options), names)
        except MemserveError as error:
            refused.append(error)
            continue
        if model is not None:
            break
    if not found.handles:
        raise refused[0] if refused else InvalidInput(f"backend {backend!r} has no task to serve")
    return found


def configured(path: Path, concurrency: int) -> Models:
    """Several models, from a JSON file; a route names others that stand above it."""
    try:
        rows = list(json.loads(path.read_text(encoding="utf-8"))["models"])
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput(f'{path} is not of the form {{"models": [...]}}') from None
    found = Models()
    try:
        for row in rows:
            _add(found, row, concurrency)
    except BaseException:
        found.close()
        raise
    return found


def _add(found: Models, row: Any, concurrency: int) -> None:
    known = row if isinstance(row, dict) else {}
    own, kind = known.get("id"), "route" if "route" in known else "backend"
    if not isinstance(own, str) or not _KEYS[kind].issuperset(known) or not known.get(kind):
        keys = "; or ".join(", ".join(sorted(keys)) for keys in _KEYS.values())
        raise InvalidInput(f"model {own!r} of the file is not made of: {keys}")
    if kind == "route":
        from memserve.run.routing import route

        members = [found.find("generate", name)[1] for name in known["route"]]
        found.add("generate", route(members, known.get("policy", "fallback")), [own])
        return
    options = {"concurrency": concurrency, **known.get("options", {})}
    one = opened(known["backend"], known.get("model"), [own], known.get("task"), options)
    for task, handles in one.handles.items():
        found.add(task, handles[own], [own])
