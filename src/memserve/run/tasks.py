"""What a run can ask for besides text: vectors, rankings, log-likelihoods, behind a generator's methods."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from memserve.client.generation import Generator
from memserve.client.pooling import Embedder, Reranker
from memserve.errors import InvalidInput, MemserveError, Unsupported
from memserve.protocol import Capabilities, Completion, Embeddings, FinishReason, Ranking, Usage

Task = Literal["generate", "embed", "rerank", "score"]
TASKS = ("generate", "embed", "rerank", "score")
EMBED = ("role", "normalize", "dimensions")
JOIN_SECONDS, MOST_JOINED = 0.005, 128
"""Texts that are asked for together go in one call: so many, collected for so long."""
_PARTS = {"rerank": ("query", "documents"), "score": ("context", "continuation")}
Named = Mapping[str, Any]
Waiting = tuple[str, "asyncio.Future[Completion]"]


@dataclass(frozen=True)
class Result(Completion):
    """An answer that is no text: what its line says in the place of one."""

    finish_reason: FinishReason | None = "stop"
    values: Mapping[str, Any] = field(default_factory=dict)


def entry(value: Any, task: Task) -> Any:
    """A line of a task as the request that stands for it: its parts are a prompt's messages."""
    if task == "generate" or isinstance(value, InvalidInput):
        return value
    if task == "embed":
        return _text(value)
    if not isinstance(value, Mapping) or not all(name in value for name in _PARTS[task]):
        names = " and ".join(f'"{name}"' for name in _PARTS[task])
        raise InvalidInput(f"a request to {task} is an object with {names}")
    rest = _rest(value, task, _PARTS[task])
    first, second = (value[name] for name in _PARTS[task])
    parts = list(second) if task == "rerank" and isinstance(second, (list, tuple)) else [second]
    if not parts:
        raise InvalidInput("documents is an empty list: there is nothing to rank")
    if not all(isinstance(part, str) for part in (first, *parts)):
        raise InvalidInput(f"{' and '.join(_PARTS[task])} are text")
    return {
        **rest,
        "max_tokens": 1,
        "messages": [{"role": task, "content": part} for part in (first, *parts)],
    }


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return {"prompt": value, "max_tokens": 1}
    if not isinstance(value, Mapping):
        return value
    found = [name for name in ("text", "input", "prompt") if name in value]
    if len(found) != 1 or not isinstance(value[found[0]], str):
        raise InvalidInput('a request to embed is a text, or an object with "text"')
    extra = {name: value[name] for name in EMBED if name in value}
    rest = _rest(value, "embed", (*EMBED, found[0]))
    return {**rest, "prompt": value[found[0]], "max_tokens": 1, **({"extra": extra} if extra else {})}


def _rest(value: Named, task: Task, names: Sequence[str]) -> dict[str, Any]:
    if odd := value.keys() - {"id", "meta", *names}:
        raise InvalidInput(f"a request to {task} has {', '.join(names)}, not {min(map(str, odd))!r}")
    return {name: value[name] for name in ("id", "meta") if name in value}


def adapted(opened: Any, task: Task | None) -> tuple[Any, Task]:
    """Whatever is open, with a generator's methods, and the task that it is for."""
    if isinstance(opened, Embedder):
        return Embedding(opened), _agreed(task, "embed")
    if isinstance(opened, Reranker):
        return Reranking(opened), _agreed(task, "rerank")
    if task == "score":
        return Scoring(opened), "score"
    return opened, _agreed(task, "generate")


def _agreed(asked: Task | None, own: Task) -> Task:
    if asked not in (None, own):
        raise InvalidInput(f"the task {asked} needs another opener than the one of {own}",
                           hint="memserve.embedder, memserve.reranker, memserve.generator")  # fmt: skip
    return own


class Adapter:
    """What stands for a generator: lists at once, or one awaited."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    @property
    def capabilities(self) -> Capabilities:
        """The opened one's."""
        known: Capabilities = self._opened.capabilities
        return known

    @property
    def identity(self) -> dict[str, str]:
        """The opened one's, for this task."""
        return {**getattr(self._opened, "identity", {}), "task": type(self).__name__}


class Reranking(Adapter):
    """A query and its documents a request."""

    def generate(self, prompts: Sequence[Any], **settings: Any) -> list[Completion]:
        """One after the other."""
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: Any) -> Completion:
        try:
            return _ranked(self._opened.rerank(*_apart(prompt)))
        except MemserveError as error:
            return Completion(text=None, error=error)

    async def agenerate(self, prompt: Any, **settings: Any) -> Completion:
        """The scores of one query's documents."""
        return _ranked(await self._opened.arerank(*_apart(prompt)))


class Scoring(Adapter):
    """A context and its continuation a request."""

    def __init__(self, opened: Generator) -> None:
        super().__init__(opened)
        if not opened.capabilities.score:
            raise Unsupported(opened.capabilities.backend, "score")

    def generate(self, prompts: Sequence[Any], **settings: Any) -> list[Completion]:
        """All pairs in one call."""
        scores = self._opened.score([(context, said) for context, (said,) in map(_apart, prompts)])
        return [_scored(score) for score in scores]

    async def agenerate(self, prompt: Any, **settings: Any) -> Completion:
        """The log-likelihood of one continuation."""
        context, (said,) = _apart(prompt)
        return _scored((await self._opened.ascore([(context, said)]))[0])


class Embedding(Adapter):
    """A text a request; those that are asked for at the same time go in one call."""

    def __init__(self, opened: Embedder) -> None:
        super().__init__(opened)
        self._waiting: dict[str, list[Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def generate(self, prompts: Sequence[Any], *, extra: Named | None = None,
                 **settings: Any) -> list[Completion]:  # fmt: skip
        """All texts in one call."""
        return _vectors(self._opened.embed(prompts, **(extra or {})), prompts)

    async def agenerate(self, prompt: str, *, extra: Named | None = None, **settings: Any) -> Completion:
        """The vector of one text."""
        loop, key = asyncio.get_running_loop(), repr(sorted((extra or {}).items()))
        answer: asyncio.Future[Completion] = loop.create_future()
        group = self._waiting.setdefault(key, [])
        group.append((prompt, answer))
        if len(group) == 1:
            loop.call_later(JOIN_SECONDS, self._start, key, dict(extra or {}))
        elif len(group) == MOST_JOINED:
            self._start(key, dict(extra or {}))
        return await answer

    def _start(self, key: str, named: Mapping[str, Any]) -> None:
        group = self._waiting.pop(key, [])
        if group:
            task = asyncio.get_running_loop().create_task(self._ask(group, named))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, group: list[Waiting], named: Named) -> None:
        texts = [text for text, _ in group]
        answers: list[Completion | Exception] = []
        try:
            answers += _vectors(await self._opened.aembed(texts, **named), texts)
        except Exception as error:
            if len(group) > 1 and not getattr(error, "retryable", False):
                await asyncio.gather(*(self._ask([one], named) for one in group))  # one of them is at fault
                return
            answers += [error] * len(group)
        for (_, future), answer in zip(group, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def _apart(messages: Sequence[Mapping[str, str]]) -> tuple[str, list[str]]:
    first, *rest = (message["content"] for message in messages)
    return first, rest


def _ranked(ranking: Ranking) -> Result:
    return Result(
        text=None, usage=ranking.usage, model=ranking.model, values={"scores": list(ranking.scores)}
    )


def _scored(score: Any) -> Result:
    names = ("logprob", "tokens", "greedy")  # each token's would make the file many times as large
    return Result(text=None, values={name: getattr(score, name) for name in names})


def _vectors(found: Embeddings, texts: Sequence[str]) -> list[Completion]:
    """A row a text; the tokens of them all, shared by length."""
    sizes = [len(text) or 1 for text in texts]
    tokens, shares = found.usage.prompt_tokens, []
    for place, size in enumerate(sizes):
        share = None if tokens is None else tokens * size // sum(sizes[place:])
        tokens = None if tokens is None or share is None else tokens - share
        shares.append(share)
    usages = [Usage() if share is None else Usage(share, 0) for share in shares]
    return [
        Result(None, usage=usage, model=found.model, values={"embedding": [float(str(x)) for x in vector]})
        for usage, vector in zip(usages, found.vectors, strict=True)
    ]
