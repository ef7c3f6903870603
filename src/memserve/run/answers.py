"""Reading an answers file back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def answers(output: str | Path) -> Iterator[dict[str, Any]]:
    """Every answer of an output, also while a run is writing it: a line that is not whole yet is left out."""
    with Path(output).open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
