"""Libraries that only some extras of memserve bring."""

from __future__ import annotations

from typing import Any

import pytest


def need(module: str, extra: str) -> Any:
    """The module, or a skip that names the extra that installs it."""
    reason = f"{module.partition('.')[0]} is not installed: pip install 'memserve[{extra}]'"
    return pytest.importorskip(module, reason=reason)
