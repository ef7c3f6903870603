"""What was measured: times, rates, memory, in rows beside their prediction, for people and as JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from memserve.bench.asking import Asked
from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB, Machine
from memserve.plan.page import Section, Shown

LISTENS = "0A"
"""A socket's state in /proc/net/tcp."""
FIGURES = {"ttft_ms": "TTFT ms", "tpot_ms": "TPOT ms", "output_tokens_per_s": "tokens/s"}


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """One target under one workload, a row for each level of load."""

    target: dict[str, Any]
    workload: dict[str, Any]
    results: tuple[dict[str, Any], ...]
    memory: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether anything was answered."""
        return any(row["failed"] < row["requests"] for row in self.results)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {
            "schema": 1, "target": self.target, "workload": self.workload, "results": list(self.results),
            "memory": self.memory, "notes": list(self.notes),
        }  # fmt: skip

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterable[Section]:
        """A table: what was measured, and behind it what was predicted."""
        told = " (predicted)" if any(row["predicted"] for row in self.results) else ""
        head = ["load", "failed", *(f"{name}{told}" for name in FIGURES.values())]
        rows = [_row(row) for row in self.results]
        if any(row["goodput_per_s"] is not None for row in self.results):
            head.append("goodput/s")
            rows = [(*_row(row), _cell(row, "goodput_per_s")) for row in self.results]
        asked = "{input_tokens:g} tokens in, {output_tokens:g} out, {requests} requests".format(
            **self.workload
        )
        yield Section(f"{self.target['model']}: {asked}", tuple(head), tuple(rows))
        lines = [f"{name}: {value}" for name, value in _shown(self.memory)]
        errors = sum((Counter(row["errors"]) for row in self.results), Counter[str]())
        lines += [f"{count} failed: {reason}" for reason, count in errors.most_common()]
        yield Section(lines=(*lines, *self.notes))


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    load = f"{row['rate']} a second" if row["rate"] else f"{row['concurrency']} at once"
    return load, f"{row['failed']}/{row['requests']}", *(_cell(row, name) for name in FIGURES)


def _cell(row: dict[str, Any], name: str) -> str:
    found = row[name]
    value = found["mean"] if isinstance(found, dict) else found
    told = (row["predicted"] or {}).get(name)
    shown = "-" if value is None else f"{value:.4g}"
    return shown if not told else f"{shown} ({told['low']:.3g} to {told['high']:.3g})"


def _shown(memory: dict[str, Any]) -> Iterable[tuple[str, str]]:
    if memory.get("process_gib") is not None:
        yield "memory of the process", f"{memory['process_gib']:g} GiB at most"
    for index, card in enumerate(memory.get("cards", ())):
        yield f"card {index}", f"{card['used_gib']:g} GiB taken"
    if memory.get("energy_joules") is not None:
        yield "energy of the cards", f"{memory['energy_joules']:.0f} J"


def spread(values: Iterable[float]) -> dict[str, float] | None:
    """Mean and percentiles; None of nothing."""
    import numpy as np

    found = np.fromiter(values, float)
    if not found.size:
        return None
    middle, most, last = np.percentile(found, (50, 90, 99))
    shown = {"mean": found.mean(), "p50": middle, "p90": most, "p99": last}
    return {name: round(float(value), 3) for name, value in shown.items()}


def first_ms(one: Asked) -> float:
    """From sending to the first piece."""
    return (one.pieces[0] - one.began) * 1e3


def token_ms(one: Asked) -> float:
    """Mean time of each token after the first."""
    return (one.pieces[-1] - one.pieces[0]) * 1e3 / ((one.usage.completion_tokens or 0) - 1)


def row(asked: Sequence[Asked], *, ttft: float | None = None, tpot: float | None = None) -> dict[str, Any]:
    """One row of the report; `ttft` and `tpot` are targets in milliseconds, which goodput counts."""
    good = [one for one in asked if one.error is None]
    seconds = max((one.ended for one in asked), default=0.0) - min((one.began for one in asked), default=0.0)
    streamed = [one for one in good if one.pieces]
    timed = [one for one in streamed if _timed(one)]
    made = sum(one.usage.completion_tokens or 0 for one in good)
    told = ttft is not None or tpot is not None
    met = [one for one in streamed if _meets(one, ttft, tpot)]
    return {
        "requests": len(asked), "failed": len(asked) - len(good), "errors": _errors(asked),
        "seconds": round(seconds, 3),
        "in_flight": _rate(sum(one.ended - one.began for one in asked), seconds),
        "input_tokens": _mean(one.usage.prompt_tokens for one in good),
        "output_tokens": _mean(one.usage.completion_tokens for one in good),
        "cached_tokens": _mean(one.usage.cached_tokens for one in good),
        "ttft_ms": spread(map(first_ms, streamed)), "tpot_ms": spread(map(token_ms, timed)),
        "gap_ms": spread((after - old) * 1e3 for one in streamed for old, after in pairwise(one.pieces)),
        "request_ms": spread((one.ended - one.began) * 1e3 for one in good),
        "output_tokens_per_s": _rate(made, seconds), "requests_per_s": _rate(len(good), seconds),
        "goodput_per_s": _rate(len(met), seconds) if told and (streamed or not good) else None,
    }  # fmt: skip


def _timed(one: Asked) -> bool:
    """Whether a time per token can be said: an answer that came in one piece has none."""
    return (one.usage.completion_tokens or 0) > 1 and len(one.pieces) > 1


def _meets(one: Asked, ttft: float | None, tpot: float | None) -> bool:
    slow = tpot is not None and _timed(one) and token_ms(one) > tpot
    return not slow and (ttft is None or first_ms(one) <= ttft)


def _errors(asked: Sequence[Asked]) -> dict[str, int]:
    """Reasons with their counts, the commonest first."""
    reasons = Counter(str(one.error).splitlines()[0][:200] for one in asked if one.error is not None)
    return dict(reasons.most_common(5))


def _mean(values: Iterable[float | None]) -> float | None:
    """Of what is told: an unknown count is no 0."""
    told = [value for value in values if value is not None]
    return round(sum(told) / len(told), 2) if told else None


def _rate(count: float, seconds: float) -> float | None:
    return round(count / seconds, 4) if seconds > 0 else None


def memory(pid: int | None) -> dict[str, Any]:
    """The most that a process and its group held, and what is taken of each card now, whoever took it."""
    from memserve.hardware import detect

    return {"process_gib": None if pid is None else _process(pid), "cards": _cards(detect())}


def startup(log: Path | None) -> dict[str, Any] | None:
    """What an engine's start-up log says of memory, in bytes: `memserve plan --calibrate` learns from it."""
    from memserve.memory import calibration

    if log is None:
        return None
    with suppress(InvalidInput):
        return {name: value for name, value in vars(calibration.read_log(log)).items() if value is not None}
    return None


def _cards(machine: Machine) -> list[dict[str, Any]]:
    card = machine.card
    free = machine.free_memory if card.vendor != "cpu" else ()
    return [{"card": card.name, "used_gib": round((card.memory - one) / GIB, 3)} for one in free or ()]


def listener(port: int) -> int | None:
    """The process of this machine that listens on a port; None where the system does not say."""
    with suppress(OSError, IndexError):
        tables = [Path(f"/proc/net/{name}").read_text("utf-8").splitlines()[1:] for name in ("tcp", "tcp6")]
        rows = [line.split() for table in tables for line in table]
        mine = {f"socket:[{row[9]}]" for row in rows if row[3] == LISTENS and row[1].endswith(f":{port:04X}")}
        return next((pid for pid in _processes() if mine & _open(pid)), None)
    return None


def _open(pid: int) -> set[str]:
    """What the descriptors of a process stand for; nothing of one that is not ours."""
    found: set[str] = set()
    with suppress(OSError):
        for entry in list(Path(f"/proc/{pid}/fd").iterdir()):
            with suppress(OSError):  # one that was closed meanwhile
                found.add(str(entry.readlink()))
    return found


def _process(pid: int) -> float | None:
    """GiB in memory at the highest; None where the system does not say."""
    ours = _group(pid) if pid != os.getpid() and _group(pid) != _group(os.getpid()) else None
    group = [one for one in _processes() if one == pid or (ours is not None and _group(one) == ours)]
    peaks = [peak for one in group if (peak := _peak(one)) is not None]
    return round(sum(peaks) / GIB, 3) if peaks else None


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _group(pid: int) -> int | None:
    with suppress(OSError, AttributeError):  # Windows has none
        return os.getpgid(pid)
    return None


def _peak(pid: int) -> int | None:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return None
