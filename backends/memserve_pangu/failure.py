"""Reads Pangu's failures: its codes, what stands in `details`, and how long a lock lasts."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from memserve import files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.http.failure import Words


@cache
def _pauses() -> list[dict[str, Any]]:
    return list(files.table(__file__, "errors.json")["pauses"])


def refine(words: Words, headers: Mapping[str, str]) -> Words:
    """The failure with its details in the message and its pause as seconds."""
    details = words.fields.get("details")
    message = f"{words.message} {details}" if isinstance(details, str) and details else words.message
    pauses = (row["seconds"] for row in _pauses() if re.search(row["pattern"], message, re.I))
    return replace(words, message=message, wait=next(pauses, words.wait))
