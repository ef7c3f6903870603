"""The generating engine: what `memserve.generator(..., backend="hf")` holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.errors import Cancelled, Closed, MemserveError
from memserve.protocol import Completion, Sample
from memserve_hf.decoding.row import Job, Settings
from memserve_hf.opening.release import release

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memserve.protocol import Capabilities, Delta, Prompt, Request, Score
    from memserve.tokens.prompts import Prompts
    from memserve_hf.decoding.grammar import Grammars
    from memserve_hf.decoding.loop import Loop
    from memserve_hf.decoding.row import Row
    from memserve_hf.decoding.scoring import Scorer
    from memserve_hf.decoding.worker import Worker

POLL_SECONDS = 1.0


class GeneratingEngine:
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
        jobs = [self._prepared(request) for request in requests]
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
        return [self._completion(job) for job in jobs]

    def stream(self, request: Request) -> Iterator[Delta]:
        """One answer piece by piece; closing the iterator gives the request up."""
        job = self._job(request, streamed=True)
        self._worker.submit(job)
        try:
            while (delta := job.deltas.get()) is not None:
                yield delta
            if job.error:
                raise job.error
        finally:
            job.cancelled = True

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Log-likelihood of each continuation after its context."""
        prepared = [self._scorer.prepare(context, continuation) for context, continuation in pairs]
        return self._worker.call(lambda: self._scorer.run(prepared))

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens that a prompt comes to, template and BOS included."""
        return len(self._prompts.encode(prompt))

    def close(self) -> None:
        """End the worker and give the memory back; a second call does nothing."""
        self._worker.close()
        self._loop.stepper.clear()
        self._model = self._scorer = self._loop.stepper = None  # type: ignore[assignment]
        release()

    # ------------------------------------------------------------ requests in

    def _prepared(self, request: Request) -> Job:
        try:
            return self._job(request)
        except Closed:
            raise
        except MemserveError as error:
            job = Job(request, [], Settings(1))
            job.close(error)
            return job

    def _job(self, request: Request, *, streamed: bool = False) -> Job:
        from memserve_hf.decoding.prefixes import names

        prompt, most = self._prompts.fit(self._prompts.encode(request.prompt), request)
        job = Job(request, prompt, Settings.of(request, most), self._grammars.of(request), streamed)
        if self._prefixes:
            job.names = names(prompt)
        return job

    def _await(self, job: Job) -> None:
        while not job.finished.wait(POLL_SECONDS):
            self._worker.check()

    # ------------------------------------------------------------ answers out

    def _completion(self, job: Job) -> Completion:
        if job.error:
            if isinstance(job.error, (Closed, Cancelled)):
                raise job.error
            return Completion(None, error=job.error, model=self.capabilities.model, request_id=job.request.id)
        samples = tuple(_sample(row) for row in job.rows)
        first = samples[0]
        return Completion(
            first.text, first.finish_reason, first.token_ids, first.logprobs,
            usage=job.usage, samples=samples if len(samples) > 1 else (),
            model=self.capabilities.model, request_id=job.request.id,
        )  # fmt: skip


def _sample(row: Row) -> Sample:
    logprobs = tuple(row.logprobs) if row.job.settings.logprobs is not None else None
    return Sample(row.text.finish(), row.finish, tuple(row.tokens), logprobs)
