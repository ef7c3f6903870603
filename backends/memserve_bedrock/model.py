"""What a model takes through Converse: a row of models.json."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from memserve import files
from memserve.protocol import Capabilities, FinishReason

EXTRA = "bedrock_"


@dataclass(frozen=True)
class Model:
    """How one model is asked."""

    name: str | None
    temperature: bool
    top_p: bool
    top_k: Any
    schema: bool
    tools: bool
    images: bool
    counts: bool


@cache
def _table(name: str) -> dict[str, Any]:
    return dict(files.table(__file__, name))


def model(name: str | None) -> Model:
    """The row of a model."""
    rows = _table("models.json")["models"]
    row = next(row for row in rows if re.search(row["pattern"], name or "", re.IGNORECASE))
    return Model(name, **{key: value for key, value in row.items() if key not in ("pattern", "source")})


@cache
def extras() -> dict[str, str]:
    """The field of each extra setting."""
    return {EXTRA + row["name"]: row["field"] for row in _table("models.json")["extras"]}


@cache
def finish_reasons() -> dict[str, FinishReason | None]:
    """What each stopReason means."""
    return {row["said"]: row["means"] for row in _table("finish.json")["reasons"]}


def capabilities(known: Model) -> Capabilities:
    """What a model can do."""
    return Capabilities(
        backend="bedrock", model=known.name, chat=True, max_tokens=True, stop=True, usage=True,
        temperature=known.temperature, max_temperature=1.0, top_p=known.top_p,
        top_k=known.top_k is not None, schema=known.schema, tools=known.tools, images=known.images,
        stream=True, count_tokens=known.counts, extras=frozenset(extras()), cancel=True,
    )  # fmt: skip
