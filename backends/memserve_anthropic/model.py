"""What a model takes: a row of models.json."""

import re
from functools import cache
from typing import Any

from memserve import files
from memserve.protocol import Capabilities, FinishReason

EXTRA = "anthropic_"
_EXTRAS = ("thinking", "metadata", "service_tier", "cache_control", "output_config", "context_management")
_SAMPLING = ("temperature", "top_p", "top_k")


@cache
def _table(name: str) -> dict[str, Any]:
    return dict(files.table(__file__, name))


@cache
def finish_reasons() -> dict[str, FinishReason | None]:
    """What each stop_reason means."""
    return {row["said"]: row["means"] for row in _table("finish.json")["reasons"]}


def _row(model: str | None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = _table("models.json")["models"]
    return next(row for row in rows if re.search(row["pattern"], model or "", re.IGNORECASE))


def thinking(model: str | None) -> dict[str, Any]:
    """How a model is asked to think; nothing for one that does not."""
    return dict(_row(model)["thinking"])


def capabilities(model: str | None, *, sampling: bool | None = None) -> Capabilities:
    """What a model can do; `sampling` overrules the row, for a model that is newer than the table."""
    row = _row(model)
    if sampling is not None:
        row = {**row, **dict.fromkeys(_SAMPLING, sampling)}
    return Capabilities(
        backend="anthropic", model=model, chat=True, max_tokens=True, stop=True, usage=True,
        temperature=row["temperature"], max_temperature=1.0, top_p=row["top_p"], top_k=row["top_k"],
        schema=row["schema"], tools=row["tools"], images=row["images"],
        thinking=frozenset(row["thinking"] or {"off"}), stream=True, count_tokens=True,
        extras=frozenset(EXTRA + name for name in _EXTRAS), cancel=True,
    )  # fmt: skip
