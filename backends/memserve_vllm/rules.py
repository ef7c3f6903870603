"""Reads this room's rows."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def load() -> dict[str, Any]:
    """What vLLM supports on which card and from which version; each row with its source."""
    text = Path(__file__).with_name("rules.json").read_text(encoding="utf-8")
    rows: dict[str, Any] = json.loads(text)
    return rows
