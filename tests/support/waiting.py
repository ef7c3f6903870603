"""Waiting for something that another thread or process does, however busy the machine is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HANG_SECONDS = 120
"""Nothing waited for here takes a tenth of it: who waits so long hangs."""


def until(happened: Callable[[], object], *, every: float = 0.02) -> None:
    """Return as soon as it has happened."""
    end = time.monotonic() + HANG_SECONDS
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {HANG_SECONDS} s in vain for {happened}")
        time.sleep(every)
