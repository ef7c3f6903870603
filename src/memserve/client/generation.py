"""The Generator that callers hold."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from memserve.client import constraint, prompt
from memserve.client.handle import Handle
from memserve.client.settings import of_request, resolve
from memserve.errors import InvalidInput, MemserveError, Unsupported
from memserve.protocol import Completion, Raw, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from memserve.protocol import Capabilities, Delta, Prompt, Score

OnError = Literal["raise", "return"]


class Generator(Handle):
    """One model behind one backend: sync, async, streaming and batch."""

    _bare: tuple[Capabilities, bool, dict[str, Any]] | None = None
    """The settings of a call that names none, worked out once."""

    @property
    def identity(self) -> dict[str, str]:
        """What answers, without any secret: backend, model, address, revision, as far as they are known."""
        known = self.capabilities
        own = {"backend": known.backend, "engine": known.engine, "model": known.model}
        own.update(getattr(self._engine, "identity", {}))
        return {name: value for name, value in own.items() if value}

    @property
    def on_throttle(self) -> Callable[[MemserveError], None] | None:
        """Called, in whatever thread, for each throttle or overload that is about to be retried."""
        hook: Callable[[MemserveError], None] | None = getattr(self._engine, "on_throttle", None)
        return hook

    @on_throttle.setter
    def on_throttle(self, hook: Callable[[MemserveError], None] | None) -> None:
        with suppress(AttributeError):  # an engine in this process is never throttled and may have slots
            self._engine.on_throttle = hook

    def generate(self, prompt: Any, *, on_error: OnError = "raise", **settings: Any) -> Any:
        """One prompt gives a Completion; a list of prompts gives a list in the same order."""
        work = self._work(prompt, on_error, settings)
        return work.result(self._driver.run(work.requests, keep_errors=work.keep))

    async def agenerate(self, prompt: Any, *, on_error: OnError = "raise", **settings: Any) -> Any:
        """`generate`, awaited."""
        work = self._work(prompt, on_error, settings)
        return work.result(await self._driver.arun(work.requests, keep_errors=work.keep))

    def stream(self, prompt: Prompt | Request, **settings: Any) -> Iterator[Delta]:
        """The answer piece by piece; a stream that breaks raises."""
        return self._read(self._streamed(prompt, settings))

    def astream(self, prompt: Prompt | Request, **settings: Any) -> AsyncIterator[Delta]:
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

    def score(self, pairs: Sequence[tuple[Any, Any]]) -> list[Score]:
        """The log-likelihood of each continuation after its context."""
        checked = self._pairs(pairs)
        return list(self._driver.call("score", checked)) if checked else []

    async def ascore(self, pairs: Sequence[tuple[Any, Any]]) -> list[Score]:
        """`score`, awaited."""
        checked = self._pairs(pairs)
        return list(await self._driver.acall("score", checked)) if checked else []

    def count_tokens(self, text: Prompt) -> int:
        """How many tokens the model's own tokenizer makes of a prompt."""
        self._open()
        if not self.capabilities.count_tokens:
            raise Unsupported(self.capabilities.backend, "count_tokens")
        return int(self._driver.call("count_tokens", prompt.check(text, self.capabilities)))

    def prepare(self, prompt: Prompt | Request, **settings: Any) -> Request:
        """The request that `generate` would hand to the engine, checked and with its defaults."""
        self._open()
        return self._request(prompt, settings, self._resolve(settings))

    def _resolve(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        known, fill = self.capabilities, not getattr(self._engine, "fills_max_tokens", False)
        if settings:
            return resolve(settings, known, fill_max_tokens=fill)
        if self._bare is None or self._bare[0] is not known or self._bare[1] is not fill:
            self._bare = (known, fill, resolve({}, known, fill_max_tokens=fill))
        return self._bare[2]

    def _request(self, item: Any, settings: Mapping[str, Any], resolved: Mapping[str, Any]) -> Request:
        if isinstance(item, Request):
            own = self._resolve({**settings, **of_request(item)})
            return Request(prompt=prompt.check(item.prompt, self.capabilities), id=item.id, **own)
        return Request(prompt=prompt.check(item, self.capabilities), **resolved)

    def _streamed(self, item: Any, settings: Mapping[str, Any]) -> Request:
        if not self.capabilities.stream:
            raise Unsupported(self.capabilities.backend, "stream")
        if not isinstance(item, Request) and prompt.is_many(item):
            raise InvalidInput("a stream answers one prompt, not a list of prompts")
        request = self.prepare(item, **settings)
        if request.n > 1:
            raise Unsupported(self.capabilities.backend, "n", "a stream carries one sample")
        return request

    def _work(self, item: Any, on_error: str, settings: Mapping[str, Any]) -> _Work:
        self._open()
        if on_error not in ("raise", "return"):
            raise InvalidInput(f"on_error is 'raise' or 'return', not {on_error!r}")
        keep = on_error == "return"
        resolved = self._resolve(settings)
        if not prompt.is_many(item):
            return _Work([self._request(item, settings, resolved)], keep, many=False)
        items = item.tolist() if hasattr(item, "tolist") else list(item)
        return _Work([self._kept(each, settings, resolved, keep) for each in items], keep, many=True)

    def _kept(self, item: Any, settings: Mapping[str, Any], resolved: Mapping[str, Any],
              keep: bool) -> Request | MemserveError:  # fmt: skip
        try:
            return self._request(item, settings, resolved)
        except InvalidInput as error:
            if keep:
                return error
            raise

    def _pairs(self, pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        self._open()
        if not self.capabilities.score:
            raise Unsupported(self.capabilities.backend, "score")
        checked = [tuple(pair) if isinstance(pair, (tuple, list)) else () for pair in pairs]
        if any(len(pair) != 2 or not pair[1] for pair in checked):
            raise InvalidInput("score takes pairs of a context and a continuation that is not empty")
        plain = [(self._plain(context), continuation) for context, continuation in checked]
        wrong = next((part for pair in plain for part in pair if not isinstance(part, str)), None)
        if wrong is not None or any(None in pair for pair in plain):
            raise InvalidInput(f"score takes plain text on both sides, not {type(wrong).__name__}")
        for pair in plain:
            prompt.encodable("".join(pair), "a pair to score")
        return plain

    @staticmethod
    def _plain(context: Any) -> Any:
        return context.text if isinstance(context, Raw) else context


class _Work:
    """The requests of one call, with the errors of prompts that were refused beforehand."""

    def __init__(self, items: Sequence[Request | MemserveError], keep: bool, *, many: bool) -> None:
        self._items = items
        self._many = many
        self.keep = keep
        self.requests = [item for item in items if isinstance(item, Request)]

    def result(self, answers: Sequence[Completion]) -> Any:
        if not self._many:
            return self._judged(self.requests[0], answers[0])
        incoming = iter(answers)
        return [
            self._judged(item, next(incoming))
            if isinstance(item, Request)
            else Completion(text=None, error=item)
            for item in self._items
        ]

    def _judged(self, request: Request, answer: Completion) -> Completion:
        error = constraint.broken(request, answer)
        if error is None:
            return answer
        if not self.keep:
            raise error
        return replace(answer, text=None, samples=(), error=error)
