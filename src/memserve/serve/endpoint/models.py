"""What is served: names, and the generator, embedder or reranker behind each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from memserve import client, registry
from memserve.client.handle import Handle
from memserve.errors import InvalidInput, MemserveError, NotFound
from memserve.protocol import Task

_OPEN = {"generate": client.generator, "embed": client.embedder, "rerank": client.reranker}
_KEYS = frozenset({"id", "backend", "model", "task", "options"})


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
    """Several models, from a JSON file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["models"]
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput(f'{path} is not of the form {{"models": [...]}}') from None
    found = Models()
    try:
        for row in _rows(path, rows):
            _add(found, row, concurrency)
    except BaseException:
        found.close()
        raise
    return found


def _rows(path: Path, rows: Any) -> Iterator[dict[str, Any]]:
    for position, row in enumerate(rows if isinstance(rows, list) else [rows]):
        if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not _KEYS.issuperset(row):
            known = ", ".join(sorted(_KEYS))
            raise InvalidInput(f"{path}: model {position} needs an id, and may have {known}")
        if not isinstance(row.get("backend"), str):
            raise InvalidInput(f"{path}: model {row['id']!r} names no backend")
        yield row


def _add(found: Models, row: dict[str, Any], concurrency: int) -> None:
    options = {"concurrency": concurrency, **row.get("options", {})}
    one = opened(row["backend"], row.get("model"), [row["id"]], row.get("task"), options)
    for task, handles in one.handles.items():
        for name, handle in handles.items():
            found.add(task, handle, [name])
