"""The Python that has a library: one that is named, this one, or an environment made from pinned packages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from memserve import cli
from memserve.engines import environment, making
from memserve.errors import EngineFailed, InvalidInput
from memserve.hardware.detection import host

_ASK = """
from importlib.metadata import distributions
print(*(one.metadata["Name"] for one in distributions() if one.metadata["Name"]))
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


ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception): ")
"""The first line of what a traceback ends with, which may have many."""


class Interpreters:
    """Which Python does which piece of work."""

    def __init__(self, named: Sequence[str] = (), *, may_install: bool = True) -> None:
        self.named = [(str(Path(one).absolute()) if "/" in one else one, _packages(one)) for one in named]
        self.may_install = may_install

    def having(self, library: Mapping[str, Any]) -> str | None:
        """One in which the library is; None where it would have to be installed and may not be."""
        wanted, install = {*map(_normal, _names(library))}, making.install(library)
        for python, packages in self.named:
            if wanted <= packages:
                return python
        if self.named:
            missing = ", ".join(sorted(wanted - self.named[0][1]))
            raise EngineFailed(f"{self.named[0][0]} lacks {missing}", hint=install)
        if wanted <= {_normal(one.metadata["Name"] or "") for one in distributions()}:
            return sys.executable
        if not self.may_install and not environment.is_made(install):
            return None
        return str(environment.make(install, report=cli.tell))


def work(python: str, library: Mapping[str, Any], job: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The answer of one job in that interpreter, run in `place`, where all that libraries strew about stays.

    A model that is a folder is named by its whole path.
    """
    place = place.absolute()
    place.mkdir(parents=True, exist_ok=True)
    file, answer, log = place / "job.json", place / "answer.json", place / "log.txt"
    answer.unlink(missing_ok=True)
    task = {"worker": library["worker"], **job, "answer": str(answer), "distributions": _names(library),
            "left_alone": [row["pattern"] for row in making.table()["left_alone"]]}  # fmt: skip
    if Path(job["model"]).is_dir():
        task["model"] = str(Path(job["model"]).absolute())
    task["packages"] = {name: _folder(name) for name in {"memserve", task["worker"].partition(".")[0]}}
    file.write_text(json.dumps(task), encoding="utf-8")
    variables = {
        name: str(Path(value).absolute()) if value and name.endswith(("_HOME", "_CACHE")) else value
        for name, value in environment.inherited(downloads=True).items()
    }
    variables = {**_threads(), **variables, **library.get("env", {}), "TOKENIZERS_PARALLELISM": "false"}
    variables.pop("PYTHONPATH", None)
    call = [python, "-c", _BOOT, str(file)]
    with (
        log.open("wb") as out,
        subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, env=variables, cwd=place
        ) as child,
    ):
        try:
            ended = child.wait()
        finally:
            child.kill()
    if not answer.exists():
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        named = [line for line in lines if ERROR.match(line)]
        why = (named or lines or ["no output"])[-1][:400]
        if ended < 0:
            name = signal.Signals(-ended).name
            why = f"{name} ended it, {'as when memory runs out' if ended == -9 else why}"
        raise EngineFailed(f"{job['name']} failed: {why}", hint=f"log: {log}")
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def _threads() -> dict[str, str]:
    """No more than there are free cores: threads that wait for each other's turn are slower than one."""
    running = []
    for _ in range(9):
        time.sleep(0.02)
        with suppress(OSError, ValueError, IndexError):
            running.append(int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]))
    free = (os.cpu_count() or 1) - (median(running) - 1 if running else 0)
    return {} if free >= host.cores() else {"OMP_NUM_THREADS": str(max(1, int(free)))}


def _names(library: Mapping[str, Any]) -> list[str]:
    """The packages without their releases."""
    return [re.split(r"[=<>!]", one)[0] for one in library["packages"]]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _folder(package: str) -> str:
    spec = find_spec(package)
    return str(Path(str(spec.origin)).parent) if spec else ""


def _packages(python: str) -> set[str]:
    try:
        done = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        raise InvalidInput(f"{python} is no working Python ({type(error).__name__})") from error
    return {*map(_normal, done.stdout.split())}
