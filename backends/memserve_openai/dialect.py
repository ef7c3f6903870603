"""A server's dialect: one row of dialects.json, refined by what is known of the model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from memserve import files
from memserve.errors import UnknownName
from memserve.protocol import Capabilities, Task
from memserve_openai.thinking import modes

_DEFAULT = "generic"
EXTRA = "openai_"


@dataclass(frozen=True)
class Dialect:
    """What one kind of server takes and how it spells it; see dialects.json."""

    name: str
    needs_key: bool
    chat: bool
    raw: bool
    token_ids: bool
    images: bool
    tools: bool
    seed: bool
    n: bool
    logprobs: int
    max_stop: int | None
    max_tokens_field: str
    max_tokens_cap: int | None
    top_k: str | None
    min_p: str | None
    regex: Any
    choices: Any
    schema: Any
    raw_schema: Any
    raw_regex: Any
    raw_choices: Any
    template: str | None
    thinking: Mapping[str, Any]
    always: Mapping[str, Any]
    stream_options: bool
    token_id_field: str | None
    extras: tuple[str, ...]
    tokenize: bool
    score: bool
    rerank: str | None
    rerank_texts: str
    dimensions: bool
    bare_vectors: Mapping[str, Any] | None
    items: int
    tokens: int
    greedy_n: bool
    lists_context: bool
    notes: tuple[str, ...]
    refuses: tuple[str, ...] = field(default=())


@cache
def _table() -> dict[str, Any]:
    return dict(files.table(__file__, "dialects.json"))


def names() -> tuple[str, ...]:
    """Every dialect that there is a row for."""
    return tuple(row["name"] for row in _table()["dialects"])


def choose(name: str | None, host: str, model: str | None) -> Dialect:
    """The dialect that was named, or that the host is known for, refined by the model's own rows."""
    rows = _table()["dialects"]
    if name is None:
        ours = (row["name"] for row in rows if any(host.endswith(known) for known in row.get("hosts", ())))
        name = next(ours, _DEFAULT)
    row = next((row for row in rows if row["name"] == name), None)
    if row is None:
        raise UnknownName(f"unknown dialect {name!r}: known are {', '.join(names())}", suggestions=names())
    return _made({**_table()["base"], **row, **_of_model(name, model)})


def _of_model(name: str, model: str | None) -> dict[str, Any]:
    for row in _table()["models"]:
        if model and name in row["dialects"] and re.search(row["pattern"], model, re.IGNORECASE):
            return {key: value for key, value in row.items() if key not in ("pattern", "dialects", "source")}
    return {}


def _made(row: Mapping[str, Any]) -> Dialect:
    values: dict[str, Any] = {part.name: row[part.name] for part in fields(Dialect) if part.name in row}
    for name in ("extras", "notes", "refuses"):
        values[name] = tuple(values.get(name, ()))
    return Dialect(**values)


def capabilities(dialect: Dialect, model: str | None, task: Task) -> Capabilities:
    """What the dialect can do with the model, for one task."""
    if task == "embed":
        return Capabilities(
            backend="openai", engine=dialect.name, model=model, tasks=frozenset({task}),
            usage=True, normalize=True, dimensions=dialect.dimensions, cancel=True,
        )  # fmt: skip
    if task == "rerank":
        return Capabilities(
            backend="openai", engine=dialect.name, model=model, tasks=frozenset({task}),
            usage=True, cancel=True,
        )  # fmt: skip
    return _generation(dialect, model)


def _generation(dialect: Dialect, model: str | None) -> Capabilities:
    refused = set(dialect.refuses)
    return Capabilities(
        backend="openai", engine=dialect.name, model=model, chat=dialect.chat, raw=dialect.raw,
        token_ids=dialect.token_ids, images=dialect.images, tools=dialect.tools,
        temperature="temperature" not in refused, top_p="top_p" not in refused, max_tokens=True, usage=True,
        top_k=dialect.top_k is not None, min_p=dialect.min_p is not None, seed=dialect.seed,
        stop="stop" not in refused, max_stop=dialect.max_stop, n=dialect.n,
        logprobs=0 if "logprobs" in refused else dialect.logprobs, score=dialect.score,
        schema=dialect.schema is not None, regex=dialect.regex is not None,
        choices=dialect.choices is not None, thinking=modes(dialect, model),
        template=dialect.template is not None, stream=True,
        extras=frozenset(EXTRA + name for name in dialect.extras),
        returns_token_ids=dialect.token_id_field is not None, count_tokens=dialect.tokenize,
        truncate=dialect.tokenize, cancel=True, notes=dialect.notes,
    )  # fmt: skip
