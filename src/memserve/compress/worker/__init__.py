"""What runs in a library's own environment: a job file in, an answer file out; it ends with whoever asked."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path


def main(path: str) -> None:
    """Do what the job says, and write the answer whole or not at all."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    began, cpu = time.perf_counter(), sum(os.times()[:4])
    answer = getattr(import_module(job["worker"]), job["do"])(job)
    answer |= {
        "seconds": round(time.perf_counter() - began, 3), "cpu_seconds": round(sum(os.times()[:4]) - cpu, 3),
        "libraries": {name: version(name) for name in job["distributions"]},
        "peak_memory_bytes": _peak_memory(),
    }  # fmt: skip
    place = Path(job["answer"])
    place.with_suffix(".new").write_text(json.dumps(answer), encoding="utf-8")
    place.with_suffix(".new").replace(place)
    sys.stdout.flush()
    os._exit(0)  # taking the libraries down in order takes more than a second, and nothing is left to do


def _end_with_parent() -> None:
    """Standard input is a pipe that nobody writes to: it ends with the process that holds it."""
    sys.stdin.read()
    os._exit(3)


def _peak_memory() -> int:
    """The most bytes held: on the cards where there are some, else in RAM."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
