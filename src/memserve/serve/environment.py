"""A Python environment made from a plan's install line, once, and kept for the next time."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from memserve.errors import EngineFailed, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DONE = ".memserve-complete"
_INSTALLERS = (["pip", "install"], ["uv", "pip", "install"], ["python", "-m", "pip", "install"])


def home() -> Path:
    """Where environments are kept: $MEMSERVE_ENVIRONMENTS, or the user's cache."""
    named = os.environ.get("MEMSERVE_ENVIRONMENTS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else cache / "memserve" / "environments"


def requirements(install: str) -> list[str]:
    """What an install line installs; a line that is none is refused, since it would be run."""
    words = shlex.split(install)
    for installer in _INSTALLERS:
        if words[: len(installer)] == installer:
            return words[len(installer) :]
    raise InvalidInput(f"not an install line: {install[:120]!r}", hint="it begins with pip install")


def make(install: str, *, folder: Path | None = None, python: str | None = None,
         report: Callable[[str], None] = print) -> Path:  # fmt: skip
    """The interpreter of an environment with those packages; made only if it is not there yet."""
    wanted = requirements(install)
    name = hashlib.sha256("\0".join([*wanted, python or sys.version.split()[0]]).encode()).hexdigest()[:16]
    place = folder or home() / name
    interpreter = place / "bin" / "python"
    if (place / _DONE).exists():
        return interpreter
    if place.exists():
        shutil.rmtree(place)  # a run before this one was interrupted
    place.parent.mkdir(parents=True, exist_ok=True)
    for command in _steps(place, wanted, python):
        report("$ " + shlex.join(command))
        _run(command)
    (place / _DONE).write_text(install + "\n", encoding="utf-8")
    return interpreter


def _steps(place: Path, wanted: Sequence[str], python: str | None) -> list[list[str]]:
    interpreter = str(place / "bin" / "python")
    uv = shutil.which("uv")
    if uv:
        version = ["--python", python] if python else []
        return [[uv, "venv", *version, str(place)], [uv, "pip", "install", "--python", interpreter, *wanted]]
    base = python or sys.executable
    return [[base, "-m", "venv", str(place)], [interpreter, "-m", "pip", "install", *wanted]]


def _run(command: Sequence[str]) -> None:
    """Show the installer's own progress; it may take many minutes, and says so itself."""
    done = subprocess.run(list(command), check=False)
    if done.returncode != 0:
        raise EngineFailed(f"{shlex.join(command)[:200]} failed with exit code {done.returncode}")
