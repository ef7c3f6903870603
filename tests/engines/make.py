"""Makes the environment of a real engine, once, and prints its interpreter.

python tests/engines/make.py NAME
python tests/engines/make.py --prepare NAME ...     the environments alone, ahead of time; nothing is printed

The engines cannot share one environment (their torch and transformers pins exclude each other), so each
has its own, under $MEMSERVE_ENGINES or the user's cache, named by its recipe in environments.json. memserve
itself is installed from this checkout, anew where that has changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DONE = "complete"
RECIPES = json.loads((HERE / "environments.json").read_text())
TESTS = ["pytest>=9.0", "pytest-asyncio>=1.3", "hypothesis>=6.115", "jinja2>=3.1", "tokenizers>=0.21"]

_REQUIRES = """
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement
for line in requires({name!r}) or ():
    need = Requirement(line)
    if need.marker is None or need.marker.evaluate({{"extra": ""}}):
        print(need.name.replace("_", "-").lower(), str(need).split(";")[0].replace(" ", ""))
"""


def home() -> Path:
    """Where environments are kept between runs."""
    named = os.environ.get("MEMSERVE_ENGINES")
    return Path(named) if named else Path.home() / ".cache" / "memserve" / "engines"


def run(*words: str, env: dict[str, str] | None = None) -> str:
    """Run a command, showing what it says when it fails."""
    world = {**os.environ, **(env or {})}
    done = subprocess.run(words, env=world, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"$ {' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def pip(python: str, packages: list[str], *, pin: list[str] | None = None, no_deps: bool = False) -> None:
    """Install packages; `pin` holds others where they are."""
    words = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages, *(pin or [])]
    run(*words, *(["--no-deps"] if no_deps else []))


def without(python: str, package: str, leave_out: list[str], pin: list[str] | None = None) -> None:
    """Install a package and what it needs, but for some."""
    pip(python, [package], no_deps=True)
    name = re.split(r"[=<>]", package)[0]
    told = run(python, "-c", _REQUIRES.format(name=name)).splitlines()
    needs = [line.partition(" ")[2] for line in told if line.partition(" ")[0] not in leave_out]
    pip(python, needs, pin=pin)


def metadata(python: str, name: str, version: str) -> None:
    """A distribution's name card, for engines that look themselves up under another name."""
    site = run(python, "-c", "import site; print(site.getsitepackages()[0])").strip()
    card = Path(site) / f"{name}-{version}.dist-info"
    card.mkdir(exist_ok=True)
    (card / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def build(python: str, packages: list[str], tools: list[str]) -> None:
    """Install packages that are built here, with these versions of what they build with."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(tools) + "\n")
        file.flush()
        words = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", *packages]
        run(*words, env={"PIP_CONSTRAINT": file.name})


def step(python: str, row: dict[str, Any]) -> None:
    """One line of a recipe."""
    if "building_with" in row:
        build(python, row["pip"], row["building_with"])
        return
    if "without" in row:
        without(python, row["without"], row["leave_out"], row.get("pin"))
    elif "metadata" in row:
        metadata(python, **row["metadata"])
    else:
        pip(python, row["pip"], pin=row.get("pin"), no_deps=row.get("no_deps", False))


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Nobody else makes this environment meanwhile."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepare(name: str, recipe: dict[str, Any]) -> Path:
    """The interpreter of that engine's environment, made where it is not there yet."""
    mark = hashlib.sha256(json.dumps([recipe["steps"], sys.version_info[:2]]).encode()).hexdigest()[:10]
    place = home() / f"{name}-{mark}"
    python = place / "bin" / "python"
    if not (place / DONE).exists():
        shutil.rmtree(place, ignore_errors=True)
        print(f"{name}: making {place}", file=sys.stderr, flush=True)
        run(sys.executable, "-m", "venv", str(place))
        for row in recipe["steps"]:
            print(f"{name}: {str(row)[:100]}", file=sys.stderr, flush=True)
            step(str(python), row)
        (place / DONE).touch()
    return python


def checkout() -> str:
    """What this checkout installs, as one word."""
    names = [
        ROOT / "pyproject.toml",
        *sorted((ROOT / "src").rglob("*")),
        *sorted((ROOT / "backends").rglob("*")),
    ]
    told = hashlib.sha256(json.dumps([TESTS, RECIPES]).encode())
    for path in names:
        if path.is_file() and path.suffix != ".pyc" and not any("egg-info" in part for part in path.parts):
            told.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return told.hexdigest()


def make(name: str) -> Path:
    """The same, with this checkout's memserve in it; one that has it is left alone: its tests may run."""
    recipe = RECIPES[name]
    with alone(name):
        python = prepare(name, recipe)
        held, wanted = python.parents[1] / "memserve.installed", checkout()
        if held.exists() and held.read_text() == wanted:
            return python
        held.unlink(missing_ok=True)
        install = ["aiohttp>=3.11", "numpy>=1.26", "nvidia-ml-py>=12.560", "rich>=13.7", *TESTS]
        pip(str(python), [*install, *recipe.get("also", ())])
        with alone("memserve"):  # two builds in one folder write over each other
            pip(str(python), ["--force-reinstall", str(ROOT)], no_deps=True)
        held.write_text(wanted)
    return python


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--prepare"] and RECIPES.keys() >= {*words[1:]}:
        for name in words[1:]:
            with alone(name):
                prepare(name, RECIPES[name])
    elif len(words) == 1 and words[0] in RECIPES:
        print(make(words[0]))
    else:
        raise SystemExit(__doc__)
