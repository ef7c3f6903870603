"""A server's dialect, thinking included: one row of dialects.json, refined by what is known of the model."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, TypeVar

from memserve import files
from memserve.errors import UnknownName
from memserve.http import Event, StreamReader
from memserve.http.chat import fill
from memserve.protocol import DEFAULT_MAX_TOKENS, Capabilities, Completion, Delta, Request, Sample, Task
from memserve.tokens.thinking import Named, Unparsed, named

log = logging.getLogger("memserve.openai")
Said = TypeVar("Said", Completion, Sample)


def modes(dialect: Dialect, model: str | None) -> frozenset[str]:
    """What may be asked for: what the dialect can spell and the model is known to do."""
    spelled = frozenset(dialect.thinking)
    return spelled & named(model or "").modes if dialect.template else spelled


def budget(request: Request) -> int:
    """Tokens of thought that were asked for besides the answer's."""
    wanted = request.thinking
    return 0 if wanted is None or isinstance(wanted, bool) else wanted


def longest(request: Request) -> int | None:
    """The most tokens of thought and answer together; None: the caller named none."""
    if request.max_tokens is None and not budget(request):
        return None
    return (request.max_tokens or DEFAULT_MAX_TOKENS) + budget(request)


def thinking_fields(
    dialect: Dialect, model: str, request: Request, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """What a request carries for `thinking` and `template`, and its provider's own settings, which win."""
    wanted, found = request.thinking, {}
    if wanted is not None:
        mode = "budget" if budget(request) else "on" if wanted else "off"
        found = dict(fill(dialect.thinking[mode], wanted))
    if dialect.template is not None:
        own = extra.get(dialect.template) or {}
        variables = {**named(model).variables(wanted), **request.template, **own}
        if variables:
            found[dialect.template] = variables
            extra = {name: value for name, value in extra.items() if name != dialect.template}
    return {**found, **extra}


def cut(answer: Completion, model: str, request: Request) -> Completion:
    """The answer with its thought apart, where the server left it in the text."""
    known = named(model)
    samples = tuple(_cut(sample, known, request.thinking) for sample in answer.samples)
    answer = replace(_cut(answer, known, request.thinking), samples=samples)
    if request.thinking is False and answer.reasoning:
        log.warning("model %r thought although thinking=False was sent", model)
    return answer


def _cut(said: Said, known: Named, wanted: bool | int | None) -> Said:
    if said.text is None or said.reasoning is not None:
        return said
    reader, cut_off = Unparsed(known, wanted), said.finish_reason == "length"
    thought, text = reader.push(said.text, last=True, cut_off=cut_off)
    if reader.unclosed:
        return replace(said, text=None, reasoning=thought or None) if cut_off else said
    return replace(said, text=text, reasoning=thought or None)


class ThoughtReader(StreamReader):
    """A stream with its thought apart. A server that sends thoughts as such is left alone."""

    def __init__(self, inner: StreamReader, model: str, wanted: bool | int | None) -> None:
        self._inner = inner
        self._text: Unparsed | None = Unparsed(named(model), wanted)

    @property
    def done(self) -> bool:
        return self._inner.done

    def take(self, event: Event) -> list[Delta]:
        cut = [self._cut(delta) for delta in self._inner.take(event)]
        return [delta for delta in cut if delta != Delta()]

    def end(self) -> list[Delta]:
        *deltas, final = self._inner.end()
        return [*map(self._cut, deltas), self._cut(final, last=True)]

    def whole(self, words: str, headers: Mapping[str, str]) -> list[Delta]:
        *deltas, final = self._inner.whole(words, headers)
        return [*map(self._cut, deltas), self._cut(final, last=True)]

    def _cut(self, delta: Delta, *, last: bool = False) -> Delta:
        if self._text is None:
            return delta
        cut_off = delta.finish_reason == "length"
        if delta.reasoning:
            held = "".join(self._text.push("", last=True, cut_off=cut_off))
            self._text = None
            return replace(delta, text=held + delta.text)
        thought, text = self._text.push(delta.text, last=last, cut_off=cut_off)
        return replace(delta, text=text, reasoning=thought)


_DEFAULT = "generic"
RESPONSES = "openai-responses"
"""Named by the caller: it is another route of servers that chat, too."""
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
    thoughts: bool
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

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of the server."""
        return self.name == _DEFAULT


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


def owner(rows: Iterable[Mapping[str, Any]]) -> str:
    """The dialect of the server that lists these models, by whom it calls their owner."""
    said = {str(row.get("owned_by")).lower() for row in rows}
    return next(
        (row["name"] for row in _table()["dialects"] if said.intersection(row.get("owners", ()))), _DEFAULT
    )


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
        template=dialect.template is not None, thoughts=dialect.thoughts, stream=True,
        extras=frozenset(EXTRA + name for name in dialect.extras),
        returns_token_ids=dialect.token_id_field is not None, count_tokens=dialect.tokenize,
        truncate=dialect.tokenize, cancel=True, notes=dialect.notes,
    )  # fmt: skip
