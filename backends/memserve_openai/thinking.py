"""Thinking in a dialect's spelling, and thoughts that a server leaves in its text."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from memserve.http import Event, StreamReader
from memserve.http.chat import fill
from memserve.protocol import DEFAULT_MAX_TOKENS, Completion, Delta, Request, Sample
from memserve.tokens.thinking import Named, Unparsed, named

if TYPE_CHECKING:
    from memserve_openai.dialect import Dialect

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


def fields(dialect: Dialect, model: str, request: Request, extra: Mapping[str, Any]) -> dict[str, Any]:
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
    samples = tuple(_cut(sample, known) for sample in answer.samples)
    answer = replace(_cut(answer, known), samples=samples)
    if request.thinking is False and answer.reasoning:
        log.warning("model %r thought although thinking=False was sent", model)
    return answer


def _cut(said: Said, known: Named) -> Said:
    if said.text is None or said.reasoning is not None:
        return said
    reader, cut_off = Unparsed(known), said.finish_reason == "length"
    thought, text = reader.push(said.text, last=True, cut_off=cut_off)
    if reader.unclosed:
        return replace(said, text=None, reasoning=thought or None) if cut_off else said
    return replace(said, text=text, reasoning=thought or None)


class ThoughtReader(StreamReader):
    """A stream with its thought apart. A server that sends thoughts as such is left alone."""

    def __init__(self, inner: StreamReader, model: str) -> None:
        self._inner = inner
        self._text: Unparsed | None = Unparsed(named(model))

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
