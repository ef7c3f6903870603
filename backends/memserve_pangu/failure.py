"""Reads Pangu's failures: its codes, what stands in `details`, and how long a lock lasts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from memserve.http.failure import reactions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.http.failure import Reaction, Words


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(files("memserve_pangu").joinpath("errors.json").read_text("utf-8"))
    return table


def codes() -> dict[str, Reaction]:
    """The reactions to Pangu's and its gateway's codes."""
    return reactions(_table()["codes"])


def refine(words: Words, headers: Mapping[str, str]) -> Words:
    """The failure with its details in the message and its pause as seconds."""
    details = words.fields.get("details")
    message = f"{words.message} {details}" if isinstance(details, str) and details else words.message
    pauses = (row["seconds"] for row in _table()["pauses"] if re.search(row["pattern"], message, re.I))
    return replace(words, message=message, wait=next(pauses, words.wait))
