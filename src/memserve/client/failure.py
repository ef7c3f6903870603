"""What an engine lacks, or raised, told as one of memserve's own errors."""

from __future__ import annotations

from typing import Any

from memserve.errors import EngineFailed, MemserveError, Unsupported


def method_of(engine: Any, *names: str) -> Any:
    """The first of these methods that the engine has."""
    for name in names:
        found = getattr(engine, name, None)
        if found is not None:
            return found
    raise Unsupported(engine.capabilities.backend, names[-1])


def failure(engine: Any, broken: Exception) -> MemserveError:
    """What an engine raised, as one of memserve's own errors."""
    if isinstance(broken, MemserveError):
        return broken
    name = engine.capabilities.backend
    return EngineFailed(f"backend {name!r} broke: {type(broken).__name__}: {broken}")
