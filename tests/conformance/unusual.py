"""Right backends that are out of the ordinary: the suite must pass or skip for each, never fail.

A pytest plug-in (`-p unusual`): it gives the toy the character named by MEMSERVE_UNUSUAL before it is opened.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memserve_toy import engine, model
from memserve_toy.engine import ToyEngine
from memserve_toy.vectors import ToyEmbedder

from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import Completion, Delta, Embeddings, Request, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

PLAIN: dict[str, Any] = {
    "raw": False, "token_ids": False, "top_k": False, "min_p": False, "seed": False, "n": False,
    "logprobs": 0, "score": False, "tokenizer": False, "schema": False, "choices": False, "truncate": False,
    "returns_token_ids": False, "deterministic": False, "count_tokens": False,
}  # fmt: skip
CHARACTERS: dict[str, dict[str, Any]] = {
    "a_chat_service": {**PLAIN, "context": None},
    "a_service_without_usage": {**PLAIN, "context": None, "usage": False},
    "completions_only": {"chat": False},
    "no_limit_of_tokens": {"max_tokens": False},
    "no_usage": {"usage": False},
    "not_deterministic": {"deterministic": False, "seed": False},
    "one_of_everything": {"max_n": 1, "max_stop": 1, "logprobs": 1, "max_temperature": 1.0},
    "often_silent": {},
    "slow": {},
    "no_stops_and_no_streams": {"stop": False, "stream": False},
    "a_reasoner_without_temperature": {"temperature": False, "top_p": False},
    "no_system_role": {},
    "chatty_pieces": {},
    "awaited_only": {"tokenizer": False},
    "no_token_ids": {"token_ids": False, "returns_token_ids": False},
}
"""Names and what differs among the capabilities."""
_LOGPROBS = model.logprobs
NAME = os.environ.get("MEMSERVE_UNUSUAL", "awaited_only")


class Unusual(ToyEngine):
    """The toy, with less that it can do or another way of doing it."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = replace(self.capabilities, **CHARACTERS[NAME])

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        time.sleep(0.02 * len(requests) if NAME == "slow" else 0)
        return [self._answer(request) for request in requests]

    def stream(self, request: Request) -> Iterator[Delta]:
        if NAME == "chatty_pieces":
            yield from self._chatty(request)
            return
        for delta in super().stream(request):
            yield delta if self.capabilities.usage else replace(delta, usage=None)

    def _chatty(self, request: Request) -> Iterator[Delta]:
        """Begins with nothing, now and then says nothing, and ends with words, reason and usage in one."""
        pieces = [delta for delta in super().stream(request) if delta.text or delta.reasoning]
        whole = self._answer(request)
        yield Delta()
        for delta in pieces[:-1]:
            yield delta
            yield Delta()
        last = pieces[-1] if pieces else Delta()
        ending = {"finish_reason": whole.finish_reason, "usage": whole.usage, "tool_calls": whole.tool_calls}
        yield replace(last, **ending)

    def _answer(self, request: Request) -> Completion:
        can = self.capabilities
        if NAME == "no_system_role" and _has_system(request.prompt):
            return Completion(text=None, error=InvalidInput("this model's template knows no system role"))
        if not can.max_tokens:
            request = replace(request, max_tokens=40)
        if not can.deterministic and not request.temperature:
            request = replace(request, temperature=0.3, seed=random.randrange(1 << 30))
        return _reduced(super()._answer(request), can)


def _has_system(prompt: Any) -> bool:
    return isinstance(prompt, list) and isinstance(prompt[0], dict) and prompt[0].get("role") == "system"


def _reduced(got: Completion, can: Any) -> Completion:
    if not can.usage:
        got = replace(got, usage=Usage())
    if not got.text:
        got = replace(got, text=None, samples=tuple(replace(s, text=s.text or None) for s in got.samples))
    if not can.returns_token_ids:
        samples = tuple(replace(sample, token_ids=None) for sample in got.samples)
        got = replace(got, token_ids=None, samples=samples)
    return got


class Awaited:
    """Satisfies memserve's AsyncEngine and nothing else."""

    def __init__(self) -> None:
        self._inner = Unusual()
        self.capabilities = self._inner.capabilities

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(0)
        got = self._inner._answer(request)
        if got.error:
            raise got.error
        return got

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        for delta in self._inner.stream(request):
            await asyncio.sleep(0)
            yield delta

    async def ascore(self, pairs: Any) -> Any:
        return self._inner.score(pairs)

    async def acount_tokens(self, prompt: Any) -> int:
        return self._inner.count_tokens(prompt)

    async def aclose(self) -> None:
        await asyncio.sleep(0)


class BareEmbedder(ToyEmbedder):
    """No roles, no choice of length, no usage, vectors as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = replace(
            self.capabilities, roles=frozenset(), normalize=False, dimensions=False, deterministic=False
        )

    def embed(self, texts: Sequence[str], *, role: Any, normalize: Any, dimensions: Any) -> Embeddings:
        if role or normalize is not None or dimensions:
            raise Unsupported("toy", "a choice")
        got = super().embed(texts, role=None, normalize=False, dimensions=None)
        return Embeddings(got.vectors * 3)


def _open(model: Any = None, *, task: str = "generate", api_key: str | None = None) -> Any:
    if model is not None and not os.path.exists(os.path.join(model, "tokenizer.json")):  # noqa: PTH110, PTH118
        raise engine.ModelUnreadable(f"{model}: no tokenizer.json in it", path=model)
    if task != "generate":
        return BareEmbedder()
    return Awaited() if NAME in ("awaited_only", "a_chat_service", "a_service_without_usage") else Unusual()


def _ends_early(tokens: Sequence[int]) -> list[float]:
    """A model that likes to say nothing: EOS is the likeliest after one text in four."""
    row = _LOGPROBS(tokens)
    if sum(tokens) % 4 == 0:
        row = [x - 5.0 for x in row]
        row[model.EOS] = math.log(1 - math.exp(-5.0))
    return row


def pytest_configure() -> None:
    engine.open_engine = _open
    if NAME == "often_silent":
        model.logprobs = _ends_early
