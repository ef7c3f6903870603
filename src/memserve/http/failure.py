"""What a failed HTTP answer means: the words of a backend's errors.json become one of memserve's errors."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeAlias

from memserve import errors, files
from memserve.errors import ContextOverflow, MemserveError, Overloaded, Redirected, RemoteError
from memserve.http import retry
from memserve.http.secret import Mask

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
        words = read(files.parsed(text))
    except ValueError:
        words = None
    words = words or Words("")
    if not words.message:
        words = replace(words, message=" ".join(mask(text).split())[:_SHOWN])
    return of_words(words, status, headers, mask=mask, known=known)


def of_words(words: Words, status: int, headers: Mapping[str, str], *, mask: Mask,
             known: KnownErrors) -> MemserveError:  # fmt: skip
    """The error of a failure in words: by its code first, then by its status."""
    with suppress(*files.STUMBLES):  # a shape that the backend does not expect is read without its help
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
    seconds = retry.asked(headers, now)
    seconds = words.wait if seconds is None else seconds
    resets = retry.resets(headers, now) if throttled and seconds is None else []
    seconds = max(resets, default=None) if seconds is None else seconds
    request_id = next((headers[name] for name in known.request_ids if name in headers), words.request_id)
    error = kind(
        f"HTTP {status}: {message or 'the server gave no reason'}", status=status,
        code=mask(words.code) if words.code else None, request_id=mask(request_id) if request_id else None,
        retry_at=now + seconds if seconds is not None else None,
    )  # fmt: skip
    error.retries = reaction.retries
    error.resets = tuple(now + reset for reset in resets)
    error.server_time = retry.date(headers.get("date", ""))
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
    groups = hit.groupdict() if hit else {}
    tokens, limit = _numbers(groups)
    error = ContextOverflow(
        tokens=tokens if tokens is not None else _whole(named.get("tokens")),
        limit=limit if limit is not None else _whole(named.get("limit")),
        message=message or "the prompt exceeds the context",
        prompt=int(groups["prompt"].replace(",", "")) if groups.get("prompt") else None,
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


Refine: TypeAlias = "Callable[[Words, Mapping[str, str]], Words]"
"""A backend's own reading of a failure: codes that stand in headers or deep in the body, put first."""
_STATUSES_WITHOUT_MEANING = (200, 400)
_SERVER = 500


@dataclass(frozen=True)
class Reaction:
    """One row: which error, and how many retries it is worth."""

    error: str
    strong: bool = True
    """Whatever the status; otherwise only where the status says nothing."""
    retries: int | None = None


@dataclass(frozen=True)
class KnownErrors:
    """The rows of an errors.json. Codes are in lower case."""

    statuses: Mapping[int, Reaction]
    codes: Mapping[str, Reaction]
    shared_codes: Mapping[str, Reaction]
    messages: tuple[tuple[re.Pattern[str], Reaction], ...]
    overflows: tuple[re.Pattern[str], ...]
    """Texts of a context overflow. Groups: limit, tokens (all), or prompt and answer to be added."""
    overflow_fields: Mapping[str, str]
    """Fields of the body -> the group whose number they hold."""
    loading: re.Pattern[str] | None
    """The text of a server that still loads its model."""
    request_ids: tuple[str, ...]
    """Headers that name the request."""
    refine: Refine | None = None

    def reaction(self, words: Words, status: int) -> Reaction:
        """The row that fits best: own strong codes, texts, shared strong codes, weak ones, the status."""
        said = [code.lower() for code in words.codes]
        own = [self.codes[code] for code in said if code in self.codes]
        texts = (row for pattern, row in self.messages if status < _SERVER and pattern.search(words.message))
        found = [self.codes.get(code) or self.shared_codes[code] for code in said if self._known(code)]
        order = (*_strong(own), *texts, *_strong(found))
        if order:
            return order[0]
        if found and status in _STATUSES_WITHOUT_MEANING:
            return found[0]
        return self.statuses.get(status) or Reaction(
            "BadRequest" if 400 <= status < _SERVER else "ServerFailed"
        )

    def _known(self, code: str) -> bool:
        return code in self.codes or code in self.shared_codes


def _strong(rows: list[Reaction]) -> list[Reaction]:
    return [row for row in rows if row.strong]


@cache
def known_errors(module: str, refine: Refine | None = None) -> KnownErrors:
    """The rows beside the module whose `__file__` is given, and those that every server shares."""
    own, shared = _read(files.table(module, "errors.json")), SHARED
    return replace(
        own, refine=refine, statuses=shared.statuses, shared_codes=shared.shared_codes,
        messages=(*own.messages, *shared.messages), overflows=(*own.overflows, *shared.overflows),
        request_ids=(*shared.request_ids, *own.request_ids),
    )  # fmt: skip


def _read(table: Mapping[str, Any]) -> KnownErrors:
    rows = {name: table.get(name, ()) for name in ("statuses", "codes", "messages", "overflows")}
    loading = table.get("loading")
    return KnownErrors(
        statuses={row["status"]: _reaction(row) for row in rows["statuses"]},
        codes={row["code"].lower(): _reaction(row) for row in rows["codes"]},
        shared_codes={},
        messages=tuple((_pattern(row), _reaction(row)) for row in rows["messages"]),
        overflows=tuple(_pattern(row) for row in rows["overflows"]),
        overflow_fields={row["field"]: row["group"] for row in table.get("overflow_fields", ())},
        loading=_pattern(loading) if loading else None,
        request_ids=tuple(table.get("request_ids", ())),
    )


def _pattern(row: Mapping[str, Any]) -> re.Pattern[str]:
    return re.compile(row["pattern"], re.IGNORECASE | re.DOTALL)


def _reaction(row: Mapping[str, Any]) -> Reaction:
    return Reaction(row["error"], row.get("strength", "strong") == "strong", row.get("retries"))


def _shared() -> KnownErrors:
    rows = _read(files.table(__file__, "data/errors.json"))
    return replace(rows, codes={}, shared_codes=rows.codes)


SHARED = _shared()
"""What HTTP itself and the format of chat completions say."""
