"""What a refused or failed HTTP answer means: a server's words become one of memserve's errors."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from memserve import errors
from memserve.errors import ContextOverflow, MemserveError, Overloaded, Redirected, RemoteError
from memserve.http import delay
from memserve.http.secret import Mask

if TYPE_CHECKING:
    from memserve.http.error_rows import KnownErrors, Reaction

_SHOWN = 500
_OK = 200
_MESSAGES = ("message", "error_msg", "errorMsg", "detail", "msg", "Message", "error")
_CODES = ("code", "error_code", "errorCode", "type", "error_type", "status", "__type")
_STATUSES = range(400, 600)


class Loading(Overloaded):
    """The server is up and still loads its model: worth waiting for."""


@dataclass(frozen=True)
class Words:
    """What a server's body says about its failure, whichever of the known shapes it has."""

    message: str
    codes: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    wait: float | None = None
    """Seconds that the body itself asks to wait."""

    @property
    def code(self) -> str | None:
        """The most telling code."""
        return next((code for code in self.codes if not code.isdigit()), None)

    @property
    def status(self) -> int | None:
        """A status that hides in the body's code."""
        found = (int(code) for code in self.codes if code.isdigit())
        return next((status for status in found if status in _STATUSES), None)


def read(body: Any) -> Words | None:
    """The failure that a parsed body speaks of; None where it speaks of none."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return None
    inner = body.get("error") or body.get("fault") or body
    if isinstance(inner, str):
        return Words(inner, _found_codes(body), body, _id(body))
    if not isinstance(inner, dict):
        return None
    message = next((str(inner[name]) for name in _MESSAGES if inner.get(name)), "")
    codes = _found_codes(inner) + (_found_codes(body) if inner is not body else ())
    return Words(message, codes, inner, _id(body)) if message or codes else None


def _found_codes(fields: Mapping[str, Any]) -> tuple[str, ...]:
    values = (fields.get(name) for name in _CODES)
    return tuple(str(value) for value in values if isinstance(value, (str, int)) and str(value))


def _id(body: Mapping[str, Any]) -> str | None:
    value = body.get("request_id") or body.get("requestId")
    return value if isinstance(value, str) else None


def error_of(status: int, headers: Mapping[str, str], text: str, *, mask: Mask,
             known: KnownErrors) -> MemserveError:  # fmt: skip
    """The error of an answer whose status is not success."""
    if 300 <= status < 400:
        target = mask(headers.get("location", "elsewhere").partition("?")[0])
        text = f"the server redirects ({status}) to {target}, which is not followed"
        return Redirected(text, status=status, hint="set base_url to the final address")
    try:
        words = read(json.loads(text))
    except (ValueError, RecursionError):
        words = None
    words = words or Words("")
    if not words.message:
        words = replace(words, message=" ".join(mask(text).split())[:_SHOWN])
    return of_words(words, status, headers, mask=mask, known=known)


def of_words(words: Words, status: int, headers: Mapping[str, str], *, mask: Mask,
             known: KnownErrors) -> MemserveError:  # fmt: skip
    """The error of a failure in words: by its code first, then by its status."""
    words = words if known.refine is None else known.refine(words, headers)
    message = mask(words.message)[: 4 * _SHOWN]
    meant = words.status or status if status == _OK else status
    reaction = known.reaction(words, meant)
    maybe = meant in (_OK, 400, 413, 422) or 500 <= meant < 503
    certain = reaction.error == "ContextOverflow"
    if certain or (maybe and reaction.error in ("BadRequest", "ServerFailed")):
        found = _overflow(known, message, words.fields, status, certain=certain)
        if found is not None:
            return found
    return _built(reaction, words, message, status, meant, headers, mask, known)


def _built(reaction: Reaction, words: Words, message: str, status: int, meant: int,
           headers: Mapping[str, str], mask: Mask, known: KnownErrors) -> MemserveError:  # fmt: skip
    kind: type[RemoteError] = getattr(errors, reaction.error)
    if kind is Overloaded and known.loading and known.loading.search(message):
        kind = Loading
    now = time.time()
    throttled = issubclass(kind, errors.Throttled) or meant == 429
    seconds = delay.asked(headers, now)
    seconds = words.wait if seconds is None else seconds
    resets = delay.resets(headers, now) if throttled and seconds is None else []
    seconds = max(resets, default=None) if seconds is None else seconds
    request_id = next((headers[name] for name in known.request_ids if name in headers), words.request_id)
    error = kind(
        f"HTTP {status}: {message or 'the server gave no reason'}", status=status,
        code=mask(words.code) if words.code else None, request_id=mask(request_id) if request_id else None,
        retry_at=now + seconds if seconds is not None else None,
    )  # fmt: skip
    error.retries = reaction.retries
    error.resets = tuple(now + reset for reset in resets)
    error.server_time = delay.date(headers.get("date", ""))
    if reaction.retries == 0 or headers.get("x-should-retry") == "false":
        error.retryable = False
    return error


def _overflow(known: KnownErrors, message: str, fields: Mapping[str, Any], status: int, *,
              certain: bool) -> ContextOverflow | None:  # fmt: skip
    """The overflow that a message speaks of; `certain`: its code says so whatever the words are."""
    hits = (pattern.search(message) for pattern in known.overflows)
    hit = next((hit for hit in hits if hit is not None), None)
    if hit is None and not certain:
        return None
    named = {group: fields[name] for name, group in known.overflow_fields.items() if name in fields}
    tokens, limit = _numbers(hit.groupdict() if hit else {})
    error = ContextOverflow(
        tokens=tokens if tokens is not None else _whole(named.get("tokens")),
        limit=limit if limit is not None else _whole(named.get("limit")),
        message=message or "the prompt exceeds the context",
    )
    error.status = status
    return error


def _numbers(groups: Mapping[str, str | None]) -> tuple[int | None, int | None]:
    found = {name: int(value.replace(",", "")) for name, value in groups.items() if value}
    if "prompt" in found:
        return found["prompt"] + found.get("answer", 0), found.get("limit")
    return found.get("tokens"), found.get("limit")


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int) else None
