"""The Generator that callers hold, and the requests of one call of `generate`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from memserve import pictures
from memserve.client import offers, prompts, schema
from memserve.client.handle import Driver, Handle
from memserve.client.settings import of_request, resolve, templated
from memserve.errors import InvalidInput, MemserveError, Unsupported
from memserve.protocol import (
    AsyncEngine,
    BatchService,
    Capabilities,
    Completion,
    Delta,
    Engine,
    FillsMaxTokens,
    OnError,
    Prompt,
    PromptLike,
    Raw,
    Request,
    Score,
    ScorePrompts,
    Settings,
    SupportsBatches,
    SupportsTokenizer,
    Usage,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Work:
    """The requests of one call, with the errors of prompts that were refused beforehand."""

    def __init__(self, items: Sequence[Request | MemserveError], keep: bool, *, many: bool) -> None:
        self._items = items
        self._many = many
        self.keep = keep
        self.requests = [item for item in items if isinstance(item, Request)]

    def again(self, answers: Sequence[Completion]) -> dict[int, Request]:
        """What must be asked once more, by its place."""
        asked = zip(self.requests, answers, strict=True)
        found = {place: schema.again(*pair) for place, pair in enumerate(asked)}
        return {place: request for place, request in found.items() if request is not None}

    def take(self, answers: list[Completion], again: Mapping[int, Request],
             more: Sequence[Completion]) -> None:  # fmt: skip
        """Put second answers in their places; they cost what both did."""
        for (place, request), answer in zip(again.items(), more, strict=True):
            self.requests[place] = request
            answers[place] = replace(answer, usage=_sum(answers[place].usage, answer.usage))

    def result(self, answers: Sequence[Completion]) -> Completion | list[Completion]:
        """One answer to one prompt, a list to a list."""
        if not self._many:
            return self._judged(self.requests[0], answers[0])
        incoming = iter(zip(self.requests, answers, strict=True))
        return [
            self._judged(*next(incoming)) if isinstance(item, Request) else Completion(text=None, error=item)
            for item in self._items
        ]

    def _judged(self, request: Request, answer: Completion) -> Completion:
        error = schema.broken(request, answer)
        if error is None:
            samples = tuple(schema.parsed(request, sample) for sample in answer.samples)
            return replace(schema.parsed(request, answer), samples=samples) if request.schema else answer
        if not self.keep:
            raise error
        return replace(answer, text=None, samples=(), error=error)


def _sum(one: Usage, other: Usage) -> Usage:
    names = [part.name for part in fields(Usage)]
    counts = {name: (getattr(one, name), getattr(other, name)) for name in names}
    return Usage(**{name: None if None in pair else sum(pair) for name, pair in counts.items()})


class Generator(Handle):
    """One model behind one backend: sync, async, streaming and batch."""

    _default: tuple[Capabilities, dict[str, Any]] | None = None
    """The settings of a call that names none, worked out once."""

    def __init__(self, engine: Engine, driver: Driver, *, images_from: object = None) -> None:
        super().__init__(engine, driver)
        self._remote = isinstance(engine, AsyncEngine)
        self._images_from = pictures.wanted(images_from, remote=self._remote)
        self._fill = not (isinstance(engine, FillsMaxTokens) and engine.fills_max_tokens)

    @overload
    def generate(self, prompt: PromptLike, *, on_error: OnError = "raise",  # type: ignore[overload-overlap]
                 **settings: Unpack[Settings]) -> Completion: ...  # fmt: skip
    @overload
    def generate(self, prompt: Iterable[PromptLike], *, on_error: OnError = "raise",
                 **settings: Unpack[Settings]) -> list[Completion]: ...  # fmt: skip
    def generate(self, prompt: PromptLike | Iterable[PromptLike], *, on_error: OnError = "raise",
                 **settings: Unpack[Settings]) -> Completion | list[Completion]:  # fmt: skip
        """One prompt gives a Completion; a list of prompts gives a list in the same order."""
        work = self._work(prompt, on_error, settings)
        answers = self._driver.run(work.requests, keep_errors=work.keep)
        while again := work.again(answers):
            work.take(answers, again, self._driver.run(list(again.values()), keep_errors=work.keep))
        return work.result(answers)

    @overload
    async def agenerate(self, prompt: PromptLike, *, on_error: OnError = "raise",  # type: ignore[overload-overlap]
                        **settings: Unpack[Settings]) -> Completion: ...  # fmt: skip
    @overload
    async def agenerate(self, prompt: Iterable[PromptLike], *, on_error: OnError = "raise",
                        **settings: Unpack[Settings]) -> list[Completion]: ...  # fmt: skip
    async def agenerate(self, prompt: PromptLike | Iterable[PromptLike], *, on_error: OnError = "raise",
                        **settings: Unpack[Settings]) -> Completion | list[Completion]:  # fmt: skip
        """`generate`, awaited."""
        work = self._work(prompt, on_error, settings)
        answers = await self._driver.arun(work.requests, keep_errors=work.keep)
        while again := work.again(answers):
            work.take(answers, again, await self._driver.arun(list(again.values()), keep_errors=work.keep))
        return work.result(answers)

    def stream(self, prompt: PromptLike, **settings: Unpack[Settings]) -> Iterator[Delta]:
        """The answer piece by piece; a stream that breaks raises."""
        return self._read(self._streamed(prompt, settings))

    def astream(self, prompt: PromptLike, **settings: Unpack[Settings]) -> AsyncIterator[Delta]:
        """`stream`, awaited."""
        return self._aread(self._streamed(prompt, settings))

    def _read(self, request: Request) -> Iterator[Delta]:
        """Holds on to this object, which would close its engine when nobody else does."""
        yield from self._driver.stream(request)

    async def _aread(self, request: Request) -> AsyncIterator[Delta]:
        deltas = self._driver.astream(request)
        try:
            async for delta in deltas:
                yield delta
        finally:
            await deltas.aclose()  # type: ignore[attr-defined]

    def score(self, pairs: Iterable[ScorePrompts]) -> list[Score]:
        """The log-likelihood of each continuation after its context.

        A context is plain text (no template), messages, or token ids; a continuation text or token ids.
        """
        checked = self._pairs(pairs)
        return list(self._driver.call(partial(offers.score(self._engine), checked))) if checked else []

    async def ascore(self, pairs: Iterable[ScorePrompts]) -> list[Score]:
        """`score`, awaited."""
        checked = self._pairs(pairs)
        return list(await self._driver.acall(partial(offers.score(self._engine), checked))) if checked else []

    def score_text(self, texts: Iterable[str], *, window: int | None = None) -> list[Score]:
        """The log-likelihood of each whole text, in windows of so many tokens (None: the model's context).

        Each token is predicted once, the first from BOS (or EOS), as lm-eval's `loglikelihood_rolling` does.
        """
        parts = self._windows(texts, window)
        scores = iter(self.score([pair for several in parts for pair in several]))
        return [prompts.total([next(scores) for _ in several]) for several in parts]

    async def ascore_text(self, texts: Iterable[str], *, window: int | None = None) -> list[Score]:
        """`score_text`, awaited."""
        parts = self._windows(texts, window)
        scores = iter(await self.ascore([pair for several in parts for pair in several]))
        return [prompts.total([next(scores) for _ in several]) for several in parts]

    def encode(self, text: str | Raw) -> list[int]:
        """The model's own token ids of a text: no template, no BOS; `decode` gives the text back.

        Of `Raw`: as a prompt, with the BOS that its tokenizer adds.
        """
        words = text.text if isinstance(text, Raw) else text
        [checked] = prompts.strings([words], "encode takes a text", "text")
        lent = self._tokenizer()
        ids = self._driver.call(partial(lent.encode, checked))
        longer = isinstance(text, Raw) and self.count_tokens(text) > len(ids)
        return [lent.prefix_token, *ids] if longer and lent.prefix_token is not None else ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, special tokens spelled out."""
        lent = self._tokenizer()
        # what reads text back need not take ids as a prompt
        checked = prompts.ids(ids, replace(self.capabilities, token_ids=True))
        return self._driver.call(partial(lent.decode, checked))

    def count_tokens(self, text: Prompt) -> int:
        """How many tokens the model's own tokenizer makes of a prompt."""
        self._check_open()
        if not self.capabilities.count_tokens:
            raise Unsupported(self.capabilities.backend, "count_tokens")
        checked = self._prompt(text)
        return self._driver.call(partial(offers.count_tokens(self._engine), checked))

    def batch_service(self) -> BatchService:
        """The provider's batch service; raises `Unsupported` where there is none."""
        self._check_open()
        if not isinstance(self._engine, SupportsBatches):
            raise Unsupported(self.capabilities.backend, "batches", "it has no batch service")
        return self._engine.batch_service

    def prepare(self, prompt: PromptLike, **settings: Unpack[Settings]) -> Request:
        """The request that `generate` would hand to the engine, checked and with its defaults."""
        self._check_open()
        return self._request(prompt, settings, self._resolve(settings))

    def _resolve(self, settings: Mapping[str, object]) -> dict[str, Any]:
        known = self.capabilities
        if settings:
            return resolve(settings, known, fill_max_tokens=self._fill)
        if self._default is None or self._default[0] is not known:
            self._default = (known, resolve({}, known, fill_max_tokens=self._fill))
        return self._default[1]

    def _request(self, item: object, settings: Mapping[str, object], resolved: Mapping[str, Any]) -> Request:
        if isinstance(item, Request):
            own = self._resolve({**settings, **of_request(item)})
            return templated(Request(prompt=self._prompt(item.prompt), id=item.id, **own))
        return templated(Request(prompt=self._prompt(item), **resolved))

    def _prompt(self, item: object) -> Prompt:
        checked = prompts.check(item, self.capabilities)
        return prompts.settled(checked, self._images_from, remote=self._remote)

    def _streamed(self, item: PromptLike, settings: Settings) -> Request:
        if not self.capabilities.stream:
            raise Unsupported(self.capabilities.backend, "stream")
        if not isinstance(item, Request) and prompts.is_many(item):
            raise InvalidInput("a stream answers one prompt, not a list of prompts")
        request = self.prepare(item, **settings)
        if request.n > 1:
            raise Unsupported(self.capabilities.backend, "n", "a stream carries one sample")
        if request.reask:
            raise Unsupported(self.capabilities.backend, "reask", "a stream is not asked for again")
        return request

    def _work(self, item: object, on_error: OnError, settings: Mapping[str, object]) -> Work:
        self._check_open()
        if on_error not in ("raise", "return"):
            raise InvalidInput(f"on_error is 'raise' or 'return', not {on_error!r}")
        keep = on_error == "return"
        resolved = self._resolve(settings)
        items = prompts.many(item)
        if items is None:
            return Work([self._request(item, settings, resolved)], keep, many=False)
        return Work([self._kept(each, settings, resolved, keep) for each in items], keep, many=True)

    def _kept(self, item: object, settings: Mapping[str, object], resolved: Mapping[str, Any],
              keep: bool) -> Request | MemserveError:  # fmt: skip
        try:
            return self._request(item, settings, resolved)
        except InvalidInput as error:
            if keep:
                return error
            raise

    def _pairs(self, pairs: Iterable[ScorePrompts]) -> list[ScorePrompts]:
        self._check_open()
        if not self.capabilities.score:
            raise Unsupported(self.capabilities.backend, "score")
        return [prompts.pair(pair, self.capabilities) for pair in pairs]

    def _windows(self, texts: Iterable[str], window: int | None) -> list[list[ScorePrompts]]:
        engine = self._tokenizer()
        width = prompts.width(engine, window)
        checked = prompts.strings(texts, "score_text takes a list of texts", "text")
        return [list(prompts.windows(engine, text, width)) for text in checked]

    def _tokenizer(self) -> SupportsTokenizer:
        self._check_open()
        if not self.capabilities.tokenizer:
            raise Unsupported(self.capabilities.backend, "encode, decode and score_text")
        return offers.tokenizer(self._engine)
