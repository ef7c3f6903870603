"""What an error means for a run: this item fails, it is asked again later, or nothing more is asked."""

from typing import Literal

from memserve.errors import (
    AuthenticationFailed,
    BackendMissing,
    Closed,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RunError,
    Throttled,
)

Reaction = Literal["fail", "again", "abort"]
ABORT = (QuotaExceeded, AuthenticationFailed, BackendMissing, Closed, RunError)
"""Whatever is asked next would end the same way, and some keys lock after a few refusals."""
ABORT_UNTIL_FIRST_ANSWER = (PermissionDenied, NotFound)
"""A wrong model or a missing right, unless other requests have shown that it works."""
AGAIN = (Throttled, Overloaded)
MOST_AGAIN = 8
"""How often one item is asked again because of throttling, while others are answered."""


def react(error: Exception, *, worked: bool, asked: int) -> Reaction:
    """`worked`: something was answered in this run; `asked`: how often this item was."""
    if isinstance(error, ABORT) or (not worked and isinstance(error, ABORT_UNTIL_FIRST_ANSWER)):
        return "abort"
    if isinstance(error, AGAIN):
        return "again" if not worked or asked <= MOST_AGAIN else "fail"
    return "fail"
