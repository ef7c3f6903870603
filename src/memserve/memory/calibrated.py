"""Where a machine's calibration lies; light, as every plan asks whether there is one."""

from __future__ import annotations

import os
from pathlib import Path


def default_path() -> Path:
    """MEMSERVE_CONFIG_DIR, else the user's configuration folder."""
    own = os.environ.get("MEMSERVE_CONFIG_DIR")
    if own:
        return Path(own) / "calibration.json"
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "memserve" / "calibration.json"


def kept() -> bool:
    """Whether there is one; a folder that may not be read holds none."""
    try:
        return default_path().is_file()
    except (OSError, RuntimeError):
        return False
