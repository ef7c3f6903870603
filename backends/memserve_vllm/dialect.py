"""How releases of vLLM spell the same thing: rows of `dialect.json`, the newest first."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, cast


@cache
def _rows() -> dict[str, Any]:
    text = Path(__file__).with_name("dialect.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version; local parts and pre-releases are left out."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def spelling(kind: str, version: str) -> dict[str, Any]:
    """The row that holds for a release; the oldest row for anything older."""
    rows = _rows()[kind]
    fitting = (row for row in rows if release(version) >= release(row["since"]))
    return cast("dict[str, Any]", next(fitting, rows[-1]))
