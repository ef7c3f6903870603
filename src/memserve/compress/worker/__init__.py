"""What runs in a library's own environment: a job file in, an answer file out; it ends with whoever asked."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def main(path: str) -> None:
    """Do what the job says, and write the answer whole or not at all."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    began, cpu = time.perf_counter(), time.process_time()
    answer = getattr(import_module(job["worker"]), job["do"])(job)
    answer |= {
        "seconds": round(time.perf_counter() - began, 3), "cpu_seconds": round(time.process_time() - cpu, 3),
        "libraries": {name: found for name in job["distributions"] if (found := _release(name))},
    }  # fmt: skip
    answer.setdefault("peak_memory_bytes", peak_memory())
    place = Path(job["answer"])
    place.with_suffix(".new").write_text(json.dumps(answer), encoding="utf-8")
    place.with_suffix(".new").replace(place)


def _end_with_parent() -> None:
    """Standard input is a pipe that nobody writes to: it ends with the process that holds it."""
    sys.stdin.read()
    os._exit(3)


def _release(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def peak_memory() -> int:
    """The most bytes that this process has held: on its cards where it uses some, else in RAM."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return sum(torch.cuda.max_memory_allocated(card) for card in range(torch.cuda.device_count()))
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
