"""The release of the accelerators' driver, from the files that its kernel module leaves."""

import re
from pathlib import Path

FILES = {
    "nvidia": "sys/module/nvidia/version",
    "amd": "sys/module/amdgpu/version",
    "ascend": "usr/local/Ascend/driver/version.info",
}
_RELEASE = re.compile(r"[0-9]+(?:\.[0-9A-Za-z]+)+")


def release(vendor: str, root: Path = Path("/")) -> str | None:
    """The driver's release; None where none is installed or nothing says."""
    if vendor not in FILES:
        return None
    try:
        found = _RELEASE.search((root / FILES[vendor]).read_text(encoding="ascii", errors="replace")[:4096])
    except OSError:
        return None
    return found[0] if found else None
