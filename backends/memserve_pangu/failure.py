"""Reads Pangu's failures: its codes, what stands in `details`, and how long a lock lasts."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from memserve import files
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
