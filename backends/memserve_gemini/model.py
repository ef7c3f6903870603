"""What a model takes: a row of models.json."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from memserve import files
from memserve.protocol import Capabilities, FinishReason

EXTRA = "gemini_"
_MOST_SAMPLES = 8
_MOST_STOPS = 5


@dataclass(frozen=True)
class Model:
    """How one model is asked for text."""

    name: str | None
    schema: str | None
    parameters: str | None
    tools: bool
    images: bool
    logprobs: int
    thinking: Mapping[str, Any]
    """What goes into thinkingConfig; nothing for a model that does not think."""
    signature: str | None
    """What a tool call carries that another model made."""

    @property
    def path(self) -> str:
        """Its resource name."""
        return path_of(self.name or "")


@dataclass(frozen=True)
class EmbeddingModel:
    """How one model is asked for vectors."""

    name: str
    roles: bool
    dimensions: bool
    unit: bool
    """Its vectors are of length one, shortened or not."""
    items: int


@cache
def _table(name: str) -> dict[str, Any]:
    return dict(files.table(__file__, name))


def path_of(name: str) -> str:
    """models/NAME, unless the name says tunedModels/... or the like itself."""
    return quote(name if "/" in name else f"models/{name}", safe="/")


def _row(kind: str, name: str | None) -> dict[str, Any]:
    rows = _table("models.json")[kind]
    row = next(row for row in rows if re.search(row["pattern"], name or "", re.IGNORECASE))
    return {key: value for key, value in row.items() if key not in ("pattern", "source")}


def model(name: str | None) -> Model:
    """The row of a generating model."""
    return Model(name, **_row("models", name))


def embedding_model(name: str) -> EmbeddingModel:
    """The row of an embedding model."""
    return EmbeddingModel(name, **_row("embedders", name))


def roles() -> dict[str, str]:
    """The task type of each role."""
    found: dict[str, str] = _table("models.json")["roles"]
    return found


@cache
def extras() -> dict[str, tuple[str, ...]]:
    """Where in a request each extra setting stands."""
    return {EXTRA + row["name"]: tuple(row["path"]) for row in _table("models.json")["extras"]}


@cache
def finish_reasons() -> dict[str, FinishReason | None]:
    """What each finishReason means, in lower case."""
    return {row["said"].lower(): row["means"] for row in _table("finish.json")["reasons"]}


def capabilities(known: Model) -> Capabilities:
    """What a model can do."""
    return Capabilities(
        backend="gemini", model=known.name, chat=True, temperature=True, max_temperature=2.0, top_p=True,
        max_tokens=True, stop=True, usage=True, top_k=True, seed=True, max_stop=_MOST_STOPS, n=True,
        max_n=_MOST_SAMPLES, logprobs=known.logprobs, schema=known.schema is not None,
        choices=known.schema is not None, tools=known.tools, images=known.images,
        thinking=frozenset(known.thinking or {"off"}), stream=True, count_tokens=True,
        extras=frozenset(extras()), cancel=True,
    )  # fmt: skip
