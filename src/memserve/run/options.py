"""What a caller may choose about a run, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memserve.errors import InvalidInput
from memserve.run.item import SETTINGS, tidy
from memserve.run.money import Budget, budget

if TYPE_CHECKING:
    from collections.abc import Mapping

Order = Literal["prefix", "given"]
PATIENCE_SECONDS = 600.0


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
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, **chosen: Any) -> Options:
        """Check and convert what a caller passed; raises InvalidInput."""
        for name in ("concurrency", "rpm", "tpm", "patience"):
            _positive(name, chosen.get(name))
        if chosen.get("order", "prefix") not in ("prefix", "given"):
            raise InvalidInput(f"order is 'prefix' or 'given', not {chosen['order']!r}")
        if chosen.get("budget") is not None:
            chosen["budget"] = budget(chosen["budget"])
        if chosen.get("cache") is not None:
            chosen["cache"] = Path(chosen["cache"])
        chosen["settings"] = _settings(chosen.get("settings") or {})
        return cls(**chosen)


def _positive(name: str, value: Any) -> None:
    whole = name == "concurrency"
    kind = int if whole else (int, float)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kind) or not value > 0:
        raise InvalidInput(f"{name} must be a positive {'integer' if whole else 'number'}, not {value!r}")


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [name for name in settings if name not in SETTINGS]
    if unknown:
        raise InvalidInput(f"unknown setting {unknown[0]!r}", hint=f"known: {', '.join(SETTINGS)}")
    return {name: tidy(name, value) for name, value in settings.items() if value is not None}
