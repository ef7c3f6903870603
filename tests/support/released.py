"""The Python files of a released wheel, fetched through pip once and not installed.

The engines' wheels are built for cards; their argument parsers and config classes are Python, and run beside
the engine of another build that the environment holds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def home() -> Path:
    """Beside the engines' environments."""
    named = os.environ.get("MEMSERVE_ENGINES")
    return (Path(named) if named else Path.home() / ".cache" / "memserve" / "engines") / "released"


def released(package: str, version: str, *beside: str) -> Path:
    """A folder for the path, with the package's Python files and the pure packages that it imports."""
    place = home() / "-".join([package, version, f"{sys.version_info[0]}{sys.version_info[1]}"])
    if not place.is_dir():
        home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home()) as scratch:
            _fetch(package, version, beside, Path(scratch))
            Path(scratch, "kept").rename(place)
    return place


def _fetch(package: str, version: str, beside: tuple[str, ...], scratch: Path) -> None:
    kept = scratch / "kept"
    _pip("download", "-d", str(scratch), "--only-binary", ":all:", f"{package}=={version}")
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        wanted = [n for n in wheel.namelist() if n.startswith(f"{package}/") and n.endswith((".py", ".json"))]
        wheel.extractall(kept, wanted)
    if beside:
        _pip("install", "--target", str(scratch / "beside"), *beside)
        shutil.copytree(scratch / "beside", kept, dirs_exist_ok=True)


def _pip(verb: str, *words: str) -> None:
    quiet = ["-q", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", verb, *quiet, *words], check=True, capture_output=True)
