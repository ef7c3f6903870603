"""The Python that has a library: one that is named, this one, or an environment made from pinned packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from memserve.engines import environment
from memserve.engines.making import Library, table
from memserve.errors import EngineFailed, InvalidInput

_ASK = """
import json
from importlib.metadata import distributions
print(json.dumps([one.metadata["Name"] or "" for one in distributions()]))
"""
_BOOT = """
import json, sys, importlib.util as u
job = json.load(open(sys.argv[1], encoding="utf-8"))
for name, place in job["packages"].items():
    spec = u.spec_from_file_location(name, place + "/__init__.py", submodule_search_locations=[place])
    sys.modules[name] = u.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
from memserve.compress import worker
worker.main(sys.argv[1])
"""
"""Our own packages are found by their folders, so that nothing else of this environment is."""
DIED = 400
"""Characters of a worker's last words."""


class Interpreters:
    """Which Python does which piece of work."""

    def __init__(self, named: Sequence[str] = (), *, may_install: bool = True) -> None:
        self.named = [(_checked(one), _packages(one)) for one in named]
        self.may_install = may_install

    def having(self, library: Library, report: Any = None) -> str | None:
        """One in which the library is; None where it would have to be installed and may not be."""
        wanted = [_normal(one) for one in library.distributions]
        for python, packages in self.named:
            if packages.issuperset(wanted):
                return python
        if self.named:
            missing = sorted(set(wanted) - self.named[0][1])
            raise EngineFailed(f"{self.named[0][0]} lacks {', '.join(missing)}", hint=library.install)
        if all(_is_here(one) for one in wanted):
            return sys.executable
        if not self.may_install and not environment.is_made(library.install):
            return None
        return str(environment.make(library.install, report=report or _told))


def work(python: str, library: Library, job: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The answer of one job in that interpreter; its output goes to a log beside it."""
    place.mkdir(parents=True, exist_ok=True)
    file, answer, log = place / "job.json", place / "answer.json", place / "log.txt"
    answer.unlink(missing_ok=True)
    worker = job.get("worker", library.worker)
    packages = {name: _folder(name) for name in {"memserve", worker.partition(".")[0]}}
    left_alone = [row["pattern"] for row in table()["left_alone"]]
    file.write_text(json.dumps({
        **job, "worker": worker, "library": library.name, "packages": packages, "answer": str(answer),
        "distributions": library.distributions, "left_alone": left_alone}), encoding="utf-8")  # fmt: skip
    variables = {**environment.inherited(downloads=True), "TOKENIZERS_PARALLELISM": "false", **library.env}
    variables.pop("PYTHONPATH", None)
    with log.open("wb") as out:
        child = subprocess.Popen([python, "-c", _BOOT, str(file)], stdin=subprocess.PIPE, stdout=out,
                                 stderr=subprocess.STDOUT, env=variables)  # fmt: skip
        try:
            code = child.wait()
        finally:
            child.kill()
    if code or not answer.exists():
        raise EngineFailed(f"{job['name']} failed: {_last_words(log)}", hint=f"log: {log}")
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return (lines[-1] if lines else "no output")[:DIED]


def _folder(package: str) -> str:
    spec = find_spec(package)
    return str(Path(str(spec.origin)).parent) if spec else ""


def _is_here(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _normal(name: str) -> str:
    """As packages are compared: llama_cpp_python is llama-cpp-python."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _checked(python: str) -> str:
    if not Path(python).is_file():
        raise InvalidInput(f"no interpreter at {python}", hint="--python takes the path of a Python")
    return python


def _packages(python: str) -> frozenset[str]:
    try:
        done = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=True, timeout=120)
        return frozenset(map(_normal, json.loads(done.stdout)))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise InvalidInput(f"{python} is no working Python: {str(error)[:120]}") from error


def _told(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
