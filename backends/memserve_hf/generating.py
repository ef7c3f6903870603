"""The generating engine: what `memserve.generator(..., backend="hf")` holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any

from memserve.errors import Cancelled, Closed, MemserveError
from memserve.protocol import Capabilities, Completion, Delta, Request, Sample, Score, ScorePrompts
from memserve.tokens.detokenizer import Detokenizer
from memserve.tokens.prompts import Prepared, Prompts
from memserve.tokens.tokenizing import Tokenizing
from memserve_hf.decoding.grammar import Grammars
from memserve_hf.decoding.loop import Loop
from memserve_hf.decoding.prefixes import names
from memserve_hf.decoding.row import Job, Row, Settings, usage
from memserve_hf.decoding.scoring import Scorer
from memserve_hf.decoding.worker import Worker
from memserve_hf.opening.device import release

POLL_SECONDS = 1.0
NOTHING = Prepared([], 1)
"""Of a request that never reaches the model."""


class GeneratingEngine(Tokenizing):
    """One causal model. Calls from several threads are decoded together."""

    concurrent = True
    fills_max_tokens = True

    def __init__(self, *, capabilities: Capabilities, identity: dict[str, str], model: Any,
                 prompts: Prompts, grammars: Grammars, loop: Loop, worker: Worker, scorer: Scorer,
                 prefixes: bool) -> None:  # fmt: skip
        self.capabilities = capabilities
        self.identity = identity
        self._model, self._prompts, self._grammars = model, prompts, grammars
        self._loop, self._worker, self._scorer = loop, worker, scorer
        self._prefixes = prefixes

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests together; one that fails alone carries its error."""
        parts = [self._prepared(request) for request in requests]
        jobs = [job for several in parts for job in several]
        try:
            for job in jobs:
                if not job.finished.is_set():
                    self._worker.submit(job)
            for job in jobs:
                self._await(job)
        except BaseException:
            for job in jobs:
                job.cancelled = True
            raise
        return [self._completion(several) for several in parts]

    def stream(self, request: Request) -> Iterator[Delta]:
        """One answer piece by piece; closing the iterator gives the request up."""
        [job] = self._jobs(request, streamed=True)
        self._worker.submit(job)
        try:
            while (delta := self._next(job)) is not None:
                yield delta
            if job.error:
                raise job.error
        finally:
            job.cancelled = True

    def score(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """Log-likelihood of each continuation after its context."""
        prepared = self._pairs(pairs)
        return self._worker.call(lambda: self._scorer.run(prepared))

    def close(self) -> None:
        """End the worker and give the memory back; a second call does nothing."""
        self._worker.close()
        self._loop.stepper.clear()
        self._model = self._scorer = self._loop.stepper = None  # type: ignore[assignment]
        release()

    # ------------------------------------------------------------ requests in

    def _prepared(self, request: Request) -> list[Job]:
        try:
            return self._jobs(request)
        except Closed:
            raise
        except MemserveError as error:
            job = Job(request, [], Settings(1), self._text(request, NOTHING))
            job.close(error)
            return [job]

    def _jobs(self, request: Request, *, streamed: bool = False) -> list[Job]:
        """One job, or several where not all samples have room side by side."""
        prepared = self._prompts.prepare(request)
        prompt, most = prepared.ids, prepared.most
        settings, grammar = Settings.of(request, most), self._grammars.of(request)
        text = self._text(request, prepared, live=streamed)
        known = names(prompt) if self._prefixes else ()
        share = self._loop.share(len(prompt) + most)
        return [
            Job(request, prompt, settings, text, grammar, streamed, first=first,
                count=min(share, request.n - first), names=known)
            for first in range(0, request.n, share)
        ]  # fmt: skip

    def _text(self, request: Request, prepared: Prepared, *, live: bool = False) -> Callable[[], Detokenizer]:
        return partial(self._prompts.detokenizer, request, prepared, live=live)

    def _next(self, job: Job) -> Delta | None:
        while True:
            with suppress(Empty):
                return job.deltas.get(timeout=POLL_SECONDS)
            self._worker.check()

    def _await(self, job: Job) -> None:
        while not job.finished.wait(POLL_SECONDS):
            self._worker.check()

    # ------------------------------------------------------------ answers out

    def _completion(self, parts: Sequence[Job]) -> Completion:
        request, model = parts[0].request, self.capabilities.model
        error = next((job.error for job in parts if job.error), None)
        if error:
            if isinstance(error, (Closed, Cancelled)):
                raise error
            return Completion(None, error=error, model=model, request_id=request.id)
        drawn = [(_sample(row), row.text.reasoning_tokens) for job in parts for row in job.rows]
        return self._joined(request, drawn, usage(parts))


def _sample(row: Row) -> Sample:
    logprobs = tuple(row.logprobs) if row.job.settings.logprobs is not None else None
    text = row.text.finish()
    return Sample(text, row.finish, tuple(row.tokens), logprobs, reasoning=row.text.reasoning)
