"""What a caller may choose about a run, checked before any work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from memserve.errors import InvalidInput
from memserve.run.limits.budget import Budget, budget, price
from memserve.run.requests import SETTINGS, checked
from memserve.run.tasks import TASKS, Task

Log = Callable[..., Any]
"""Called as log({name: figure}, step=settled): wandb.log and mlflow.log_metrics are such."""
Order = Literal["prefix", "given"]
PATIENCE_SECONDS = 600.0
MOST = sys.float_info.max
WORKER = ("num_cpus", "num_gpus", "memory", "resources")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of a run; `Options.of` reads them from a caller's words."""

    resume: bool = True
    retry_failed: bool = False
    concurrency: int | None = None
    rpm: float | None = None
    tpm: float | None = None
    order: Order = "prefix"
    patience: float = PATIENCE_SECONDS
    cache: Path | None = None
    budget: Budget | None = None
    price: tuple[float, float] | None = None
    progress: bool | None = None
    page: Path | None = None
    """The run as a page, written while it goes on."""
    watch: int | None = None
    """The same on a port of this machine, and metrics; 0 takes a free one."""
    log: Log | None = None
    """A tracker of experiments: log({name: figure}, step=N)."""
    telemetry: bool = False
    """OpenTelemetry's spans and metrics."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    task: Task | None = None
    """None: what the generator, embedder or reranker is for."""
    cache_marks: bool = True
    """Prefixes that requests share are marked for the provider's cache, where it wants marks."""
    batch: bool = False
    """Through the provider's batch service."""
    distributed: bool = False
    """Spread over a Ray cluster."""
    address: str | None = None
    """The cluster's; None: the one of RAY_ADDRESS or of this machine, or a new one."""
    workers: int | None = None
    """Generators, one to an actor; None: as many as the cluster has nodes."""
    worker_resources: Mapping[str, Any] = field(default_factory=dict)
    """What each worker holds: num_cpus, num_gpus, memory, resources."""

    @property
    def observed(self) -> bool:
        """Whether anybody follows the run beside its progress line."""
        return self.telemetry or any(one is not None for one in (self.page, self.watch, self.log))

    @property
    def limits(self) -> dict[str, Any]:
        """What a regulator keeps to."""
        return {
            "concurrency": self.concurrency, "rpm": self.rpm, "tpm": self.tpm, "patience": self.patience,
        }  # fmt: skip

    @classmethod
    def of(cls, **chosen: Any) -> Options:
        """Check and convert what a caller passed; raises InvalidInput."""
        for name in ("concurrency", "rpm", "tpm", "patience", "workers"):
            _positive(name, chosen.get(name))
        if chosen.get("order", "prefix") not in ("prefix", "given"):
            raise InvalidInput(f"order is 'prefix' or 'given', not {chosen['order']!r}")
        if chosen.get("task") not in (None, *TASKS):
            raise InvalidInput(f"task is one of {', '.join(TASKS)}, not {chosen['task']!r}")
        for name in ("resume", "retry_failed", "cache_marks", "batch", "telemetry", "progress"):
            if not isinstance(chosen.get(name), (bool, NoneType)):
                raise InvalidInput(f"{name} is True or False, not {chosen[name]!r}")
        if type(chosen.get("watch")) not in (int, NoneType):
            raise InvalidInput(f"watch is a port's number, not {chosen['watch']!r}")
        _spread(chosen)
        if chosen.get("budget") is not None:
            chosen["budget"] = budget(chosen["budget"])
        if chosen.get("price") is not None:
            chosen["price"] = price(chosen["price"])
        for name in ("cache", "page"):
            if not isinstance(found := chosen.get(name), (str, Path, NoneType)):
                raise InvalidInput(f"{name} is the path of a file, not {found!r}")
            chosen[name] = found and Path(found)
        if chosen.get("log") is not None and not callable(chosen["log"]):
            raise InvalidInput("log is a function that takes ({name: figure}, step=N), as wandb.log")
        chosen["settings"] = _settings(chosen.get("settings") or {})
        return cls(**chosen)


def _positive(name: str, value: Any) -> None:
    whole = name in ("concurrency", "workers")
    kind = int if whole else (int, float)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value <= MOST:
        raise InvalidInput(f"{name} must be a positive {'integer' if whole else 'number'}, not {value!r}")


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [name for name in settings if name not in SETTINGS]
    if unknown:
        raise InvalidInput(f"unknown setting {unknown[0]!r}", hint=f"known: {', '.join(SETTINGS)}")
    return checked(settings)


def _spread(chosen: dict[str, Any]) -> None:
    """What only a run on a cluster can have, and what it cannot."""
    way = chosen.get("distributed")
    if way not in (None, False, True, "ray"):
        raise InvalidInput(f"distributed is 'ray' or None, not {way!r}")
    chosen["distributed"] = bool(way)
    resources = chosen["worker_resources"] = dict(chosen.get("worker_resources") or {})
    unknown = next((name for name in resources if name not in WORKER), None)
    if unknown:
        raise InvalidInput(f"unknown worker resource {unknown!r}", hint=f"known: {', '.join(WORKER)}")
    if way and chosen.get("batch"):
        raise InvalidInput("a batch is the provider's to spread: leave --batch or --ray out")
    if way and chosen.get("task") not in (None, "generate"):
        raise InvalidInput("a run on Ray generates: leave --task or --ray out")
    if way and (chosen.get("rpm") or chosen.get("tpm")):
        raise InvalidInput("rpm and tpm are paced by one process: leave them or --ray out")
    if not way and (chosen.get("workers") or chosen.get("address") or resources):
        raise InvalidInput("workers belong to a run on Ray", hint="distributed='ray', or --ray")
