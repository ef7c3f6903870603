"""What is measured beside time: memory of the process and the cards, and the cards' energy."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB, Machine


def memory(pid: int | None) -> dict[str, Any]:
    """The most that a process and its group held, and what is taken of each card now, whoever took it."""
    from memserve.hardware import detect

    return {"process_gib": None if pid is None else _process(pid), "cards": _cards(detect())}


def startup(log: Path | None) -> dict[str, Any] | None:
    """What an engine's start-up log says of memory, in bytes: `memserve plan --calibrate` learns from it."""
    from memserve.memory import startup_log

    if log is None:
        return None
    with suppress(InvalidInput):
        return {name: value for name, value in vars(startup_log.read(log)).items() if value is not None}
    return None


def _cards(machine: Machine) -> list[dict[str, Any]]:
    card = machine.card
    free = machine.free_memory if card.vendor != "cpu" else ()
    return [{"card": card.name, "used_gib": round((card.memory - one) / GIB, 3)} for one in free or ()]


def _process(pid: int) -> float | None:
    """GiB in memory at the highest; None where the system does not say."""
    group = [other for other in _processes() if other == pid or _group(other) == pid != os.getpid()]
    peaks = [peak for one in group if (peak := _peak(one)) is not None]
    return round(sum(peaks) / GIB, 3) if peaks else None


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _group(pid: int) -> int | None:
    with suppress(OSError):
        return os.getpgid(pid)
    return None


def _peak(pid: int) -> int | None:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return None
