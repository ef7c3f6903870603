"""Where a machine's calibration lies; light, as every plan asks whether there is one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memserve import files
from memserve.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path


NAME = "calibration.json"
SPEED = "speed.json"
"""What `--calibrate bench.json` learns."""


def default_path(name: str = NAME) -> Path:
    """In MEMSERVE_CONFIG_DIR, else in the user's configuration folder."""
    from pathlib import Path

    return Path(files.configured(name))


def exists(name: str = NAME) -> bool:
    """Whether there is one; a folder that may not be read holds none."""
    return os.access(files.configured(name), os.F_OK)


def write(file: Path, text: str) -> None:
    """The whole file or nothing of it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        half = file.with_suffix(".new")
        half.write_text(text, encoding="utf-8")
        half.replace(file)
    except OSError as error:
        raise InvalidInput(f"cannot write the calibration {str(file)!r}: {error.strerror}") from None
