"""The one retry layer: what a failed attempt is worth, and how long to wait before the next."""

import time
from collections import Counter
from dataclasses import dataclass, field

from memserve.errors import Overloaded, RemoteError, Throttled
from memserve.http import delay
from memserve.http.limits import Limits
from memserve.http.transport import Refused, Stale

_REFUSED_CAP = 2.0
_UNKNOWN_SERVER_SECONDS = 10.0
_UNKNOWN_SERVER_SHARE = 2.5


@dataclass
class Attempts:
    """The attempts of one request: at most `max_retries` + 1 posts, plus one replay of a stale connection.

    A refused connection is no post: it is tried again for as long as the server may take to start, which is
    short for a server that has never answered (the address may be wrong).
    """

    limits: Limits
    known: bool
    """The server has answered before."""
    failed: int = 0
    renewed: bool = False
    _replayed: bool = False
    _refused: int = 0
    _refused_since: float | None = None
    _of_kind: Counter[str] = field(default_factory=Counter)

    def after(self, error: RemoteError) -> float:
        """Seconds to wait before the next attempt; raises the error where there is none."""
        if not error.retryable:
            raise self._final(error)
        if isinstance(error, Stale) and not self._replayed:
            self._replayed = True
            return 0.0
        if isinstance(error, Refused):
            return self._after_refused(error)
        self.failed += 1
        self._of_kind[type(error).__name__] += 1
        worth = self.limits.max_retries if error.retries is None else error.retries
        if self.failed > self.limits.max_retries or self._of_kind[type(error).__name__] > worth:
            raise self._final(error)
        return self._pause(error)

    def _after_refused(self, error: RemoteError) -> float:
        now = time.monotonic()
        self._refused_since = now if self._refused_since is None else self._refused_since
        self._refused += 1
        budget = self.limits.startup_seconds
        if not self.known:
            budget = min(budget, _UNKNOWN_SERVER_SECONDS, _UNKNOWN_SERVER_SHARE * self.limits.timeout)
        pause = min(_REFUSED_CAP, delay.backoff(self._refused - 1))
        if not self.limits.max_retries or now + pause > self._refused_since + budget:
            raise error
        return pause

    def _pause(self, error: RemoteError) -> float:
        own = delay.backoff(self.failed - 1)
        if error.retry_at is None:
            return own
        asked = max(0.0, error.retry_at - time.time())
        if asked > self.limits.max_wait:
            return max(own, self._largest_reset(error))
        return max(asked, 0.0 if isinstance(error, (Throttled, Overloaded)) else own)

    def _largest_reset(self, error: RemoteError) -> float:
        """The longest of the waits that are hints and short enough; raises where the wait was demanded."""
        if not error.resets:
            raise self._final(error)
        now = time.time()
        return max((at - now for at in error.resets if at - now <= self.limits.max_wait), default=0.0)

    def _final(self, error: RemoteError) -> RemoteError:
        if self.failed > 1:
            error.message += f" (after {self.failed} attempts)"
        return error
