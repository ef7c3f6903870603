"""What deliberately wrong backends are made of: a register, and wrappers of what memserve opens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import memserve
from memserve.client.prompts import is_many

Patch = Callable[[], None]
MUTANTS: dict[str, tuple[str, Patch]] = {}


def mutant(group: str, *, alone: bool = False) -> Callable[[Any], Any]:
    """Register a wrong backend, a function or a wrapper, with the group that must catch it.

    `alone`: no other group may catch it.
    """

    def register(wrong: Any) -> Any:
        patch = (lambda: wrap(wrong)) if isinstance(wrong, type) else wrong
        MUTANTS[wrong.__name__] = (group, patch)
        return wrong

    return register


def around(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    setattr(owner, name, make(getattr(owner, name)))


class Wrapped:
    """What `memserve.generator` returned, with some methods replaced."""

    opener = "generator"

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __enter__(self) -> Any:
        self.inner.__enter__()
        return self

    def __exit__(self, *what: Any) -> None:
        self.inner.__exit__(*what)

    def __repr__(self) -> str:
        return repr(self.inner)


def wrap(kind: type[Wrapped]) -> None:
    around(memserve, kind.opener, lambda real: lambda *a, **k: kind(real(*a, **k)))


class Altered(Wrapped):
    """A generator whose questions or answers are altered, however it is asked."""

    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        return prompts

    def after(self, prompts: list[Any], settings: dict[str, Any], answers: list[Any]) -> list[Any]:
        return [self.one(settings, answer) for answer in answers]

    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return answer

    def pieces(self, settings: dict[str, Any], deltas: Iterator[Any]) -> Iterator[Any]:
        yield from deltas

    def _asked(self, prompt: Any, settings: dict[str, Any]) -> list[Any]:
        prompts, kept = (list(prompt) if is_many(prompt) else [prompt]), dict(settings)
        try:
            return self.before(prompts, settings)
        except (TypeError, AttributeError, KeyError):  # malformed: the real one says so
            settings.clear()
            settings.update(kept)
            return prompts

    def generate(self, prompt: Any, **settings: Any) -> Any:
        many, wanted = is_many(prompt), dict(settings)
        prompts = self._asked(prompt, settings)
        got = self.inner.generate(prompts if many else prompts[0], **settings)
        out = self.after(prompts, wanted, got if many else [got])
        return out if many else out[0]

    async def agenerate(self, prompt: Any, **settings: Any) -> Any:
        many, wanted = is_many(prompt), dict(settings)
        prompts = self._asked(prompt, settings)
        got = await self.inner.agenerate(prompts if many else prompts[0], **settings)
        out = self.after(prompts, wanted, got if many else [got])
        return out if many else out[0]

    def stream(self, prompt: Any, **settings: Any) -> Any:
        wanted = dict(settings)
        asked = self._asked(prompt, settings)
        altered = asked if is_many(prompt) else asked[0]
        yield from self.pieces(wanted, self.inner.stream(altered, **settings))

    async def astream(self, prompt: Any, **settings: Any) -> Any:
        wanted = dict(settings)
        asked = self._asked(prompt, settings)
        altered = asked if is_many(prompt) else asked[0]
        deltas = [delta async for delta in self.inner.astream(altered, **settings)]
        for delta in self.pieces(wanted, iter(deltas)):
            yield delta


class AlteredEmbedder(Wrapped):
    """An embedder whose texts or vectors are altered."""

    opener = "embedder"

    def before(self, texts: list[str], how: dict[str, Any]) -> list[str]:
        return texts

    def after(self, texts: list[str], how: dict[str, Any], got: Any) -> Any:
        return got

    def embed(self, texts: Any, **how: Any) -> Any:
        asked, wanted = ([texts] if isinstance(texts, str) else list(texts)), dict(how)
        return self.after(asked, wanted, self.inner.embed(self.before(asked, how), **how))

    async def aembed(self, texts: Any, **how: Any) -> Any:
        return await asyncio.to_thread(lambda: self.embed(texts, **how))
