"""Where every outcome goes: the journal, the cache, the file of failures, and the counts."""

import logging
import time
from dataclasses import dataclass
from typing import Any

from memserve.errors import MemserveError
from memserve.protocol import Completion, Usage
from memserve.run.limits.budget import Spending
from memserve.run.requests import Item
from memserve.run.store import record
from memserve.run.store.cache import Cache
from memserve.run.store.failures import Failures
from memserve.run.store.journal import Journal
from memserve.run.summary import Summary

_log = logging.getLogger("memserve.run")


@dataclass
class Counts:
    """The running totals behind a summary and a progress line."""

    total: int = 0
    done: int = 0
    cached: int = 0
    resumed: int = 0
    repeated: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    usd: float | None = None

    @property
    def settled(self) -> int:
        """Requests about which nothing remains to be done."""
        return self.done + self.cached + self.resumed + self.repeated + self.failed

    def add(self, usage: Usage, usd: float | None) -> None:
        """Count one answer."""
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0
        self.cached_tokens += usage.cached_tokens or 0
        if usd is not None:
            self.usd = (self.usd or 0.0) + usd


class Results:
    """Takes outcomes from the reading thread and from the asking one."""

    def __init__(self, journal: Journal, failures: Failures, cache: Cache | None, spending: Spending) -> None:
        self.counts = Counts()
        self._journal = journal
        self._failures = failures
        self._cache = cache
        self._spending = spending
        self._model: str | None = None
        self._began = time.monotonic()

    @property
    def trouble(self) -> MemserveError | None:
        """Why nothing more should be asked, as a full disk."""
        return self._journal.full

    def answered(self, item: Item, completion: Completion, seconds: float) -> None:
        """Write an answer down: first of all to the journal."""
        usd = self._spending.cost(completion.usage, completion.by)
        body = record.body(completion)
        self._journal.append(record.line(item, body, seconds, usd))
        self.counts.done += 1
        self.counts.add(completion.usage, usd)
        if completion.by is None:  # a route's answers say themselves whose they are
            self._watch_model(completion.model)
        if self._cache:
            self._keep(self._cache, item, completion, body)

    def replayed(self, item: Item) -> bool:
        """Answer out of the cache, if it has the answer."""
        body = self._cache.get(item) if self._cache else None
        if body is None:
            return False
        self._journal.append(record.line(item, body, None, None))
        self.counts.cached += 1
        return True

    def failed(self, item: Item, error: BaseException) -> None:
        """Write a failure down."""
        self._failures.add(item, error)
        self.counts.failed += 1

    def malformed(self, index: int, line: int | None, error: BaseException, name: Any = None) -> None:
        """Write down an entry that is no request, under the id that it may have."""
        self._failures.malformed(index, line, error, name)
        self.counts.failed += 1

    def summary(self, stopped: str | None) -> Summary:
        """The counts so far."""
        counts = self.counts
        return Summary(
            output=str(self._journal.path), failed_output=str(self._failures.path),
            pending=max(0, counts.total - counts.settled), seconds=time.monotonic() - self._began,
            stopped=stopped, **vars(counts),
        )  # fmt: skip

    def _keep(self, cache: Cache, item: Item, completion: Completion, body: bytes) -> None:
        try:
            cache.put(item, completion, body)
        except MemserveError as broken:  # the answer itself is safe
            _log.warning("%s; going on without the cache", broken)
            self._cache = None

    def _watch_model(self, model: str | None) -> None:
        if self._model is None:
            self._model = model
        elif model is not None and model != self._model:
            _log.warning("answers now come from model %r, before from %r", model, self._model)
            self._model = model
