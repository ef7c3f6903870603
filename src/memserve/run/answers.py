"""Reading an answers file back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def answers(output: str | Path) -> Iterator[dict[str, Any]]:
    """Every answer of an output, also while a run is writing it: a line that is not whole yet is left out."""
    with Path(output).open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
