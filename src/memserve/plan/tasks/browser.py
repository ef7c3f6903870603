"""memserve plan --page FOLDER: the planner as a page that runs in the reader's own browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile

from memserve import registry
from memserve.errors import InvalidInput, MemserveError

if TYPE_CHECKING:
    from argparse import Namespace

PYODIDE = "pyodide@^314"
NEEDED = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
"""Of npm's package: CPython for browsers, and its standard library."""
MEMORY = "memory.gz"
"""Python's memory after a first answer: starting and importing anew would be four fifths of one."""
SHOWN = "index.html"


def run(options: Namespace) -> int:
    """Write the page, the planner and its Python into one folder."""
    folder = Path(options.page)
    try:
        (folder / "pyodide").mkdir(parents=True, exist_ok=True)
        _python(folder / "pyodide")
        _pack(folder / "memserve.zip")
        _remember(folder)
        shutil.copyfile(Path(__file__).with_name("browser.html"), folder / SHOWN)
    except OSError as error:
        raise InvalidInput(f"--page cannot write {str(folder)[:80]!r}: {error.strerror or error}") from error
    print(f"{folder / SHOWN}: any web server shows it: python -m http.server --bind 127.0.0.1 -d {folder}")
    return 0


def _python(folder: Path) -> None:
    """What npm's package has, unless it lies there already."""
    if all((folder / name).is_file() for name in NEEDED):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise InvalidInput(
            "--page needs npm's package pyodide", hint=f"unpack it into {folder}, or install npm"
        )
    with TemporaryDirectory() as work:
        words = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", work, PYODIDE]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InvalidInput(f"npm could not fetch {PYODIDE}: {(done.stderr or done.stdout)[-200:]}")
        for name in NEEDED:
            shutil.copyfile(Path(work, "node_modules", "pyodide", name), folder / name)


def _remember(folder: Path) -> None:
    """Python's memory after a first answer, where node is installed: of this very Python and planner."""
    (folder / MEMORY).unlink(missing_ok=True)
    if node := shutil.which("node"):
        words = [node, str(Path(__file__).with_suffix(".mjs")), str(folder.resolve())]
        subprocess.run(words, capture_output=True, check=False)
    if not (folder / MEMORY).exists():
        print(f"without {MEMORY}, which node writes: the page's first answer takes some seconds longer")


def _pack(file: Path) -> None:
    """The core and every installed backend, with the entry points that name them."""
    entries = registry.entries()
    points = "".join(f"{entry.name} = {entry.value}\n" for entry in entries)
    with ZipFile(file, "w", ZIP_DEFLATED) as packed:
        packed.writestr("memserve-page.dist-info/entry_points.txt", f"[{registry.GROUP}]\n{points}")
        for package in ("memserve", *sorted({entry.module.split(".")[0] for entry in entries})):
            for path, name in _files(package):
                packed.write(path, name)


def _files(package: str) -> Iterator[tuple[Path, str]]:
    spec = PathFinder.find_spec(package)
    for place in map(Path, (spec.submodule_search_locations if spec else None) or ()):
        for path in sorted(place.rglob("*")):
            if path.is_file() and path.suffix != ".pyc" and "conformance" not in path.parts:
                yield path, f"{package}/{path.relative_to(place).as_posix()}"


def names() -> str:
    """What the page offers to choose from, as JSON."""
    from memserve.hardware import cards
    from memserve.model.catalogue import names as models

    return json.dumps({"models": list(models()), "cards": [card.name for card in cards()]})


def answer(asked: str) -> str:
    """What the page shows for the words of a command line; both are JSON."""
    return json.dumps(_answer(json.loads(asked)))


def _answer(words: list[str]) -> dict[str, Any]:
    from memserve.plan.page import html
    from memserve.plan.tasks.options import heeded, parse, plan

    try:
        heeded("", options := parse(words))
        found = plan(options)
    except MemserveError as error:
        return {"error": str(error)}
    first = list(found.sections())
    rest = [section for section in found.sections(why=True, everything=True) if section not in first]
    return {"fits": found.fits, "html": html(first), "why": html(rest), "answer": found.to_dict()}
