"""What went wrong, as OpenAI's routes tell it: a status, and an object with message, type, param and code."""

import time
from typing import Any

from memserve import errors

_KINDS: tuple[tuple[type[errors.MemserveError], int, str | None], ...] = (
    (errors.ContextOverflow, 400, "context_length_exceeded"), (errors.NotFound, 404, "model_not_found"),
    (errors.QuotaExceeded, 429, "insufficient_quota"), (errors.Throttled, 429, "rate_limit_exceeded"),
    (errors.Overloaded, 503, "overloaded"), (errors.ContentRefused, 400, "content_filter"),
    (errors.BadRequest, 400, None), (errors.Unsupported, 400, "unsupported_parameter"),
    (errors.InvalidInput, 400, "invalid_value"), (errors.TimedOut, 504, "timeout"),
    (errors.Closed, 503, "closed"), (errors.RemoteError, 502, "upstream"), (errors.MemserveError, 500, None),
)  # fmt: skip
"""The first that fits. A provider that refuses our own key (RemoteError) is no fault of the caller's."""


def told(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The object that stands in the body."""
    limited = {429: "rate_limit_error"}
    kind = limited.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def of(error: errors.MemserveError) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body of an error."""
    status, code = next((status, code) for kind, status, code in _KINDS if isinstance(error, kind))
    headers = {}
    retry_at = getattr(error, "retry_at", None)
    if retry_at is not None or status == 503:
        headers["Retry-After"] = str(max(1, round((retry_at or 0) - time.time())))
    if status >= 500 and not error.retryable:
        headers["x-should-retry"] = "false"
    return status, headers, told(status, str(error), code, getattr(error, "setting", None))
