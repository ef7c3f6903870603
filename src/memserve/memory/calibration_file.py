"""Where a machine's calibration lies; light, as every plan asks whether there is one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memserve import files

if TYPE_CHECKING:
    from pathlib import Path


def default_path() -> Path:
    """MEMSERVE_CONFIG_DIR, else the user's configuration folder."""
    from pathlib import Path

    return Path(_place())


def _place() -> str:
    own = os.environ.get("MEMSERVE_CONFIG_DIR")
    if own:
        return f"{own}/calibration.json"
    base = os.environ.get("XDG_CONFIG_HOME") or files.expanded("~/.config")
    return f"{base}/memserve/calibration.json"


def exists() -> bool:
    """Whether there is one; a folder that may not be read holds none."""
    return os.access(_place(), os.F_OK)
