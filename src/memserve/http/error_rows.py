"""What servers say when something went wrong: a backend's own errors.json, before the rows that all share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

from memserve import files
from memserve.http.failure import Words

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
