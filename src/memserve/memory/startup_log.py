"""Reads what engines say about memory when they start, by the lines that each backend's log.json lists."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from memserve.engines import installed
from memserve.engines.log import LogFormat
from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB

MOST_BYTES = 2 * 1024**2
"""A start tells all of this within its first few thousand lines."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RANK = re.compile(r"\b(?:TP|rank=|Worker_TP|DP)([0-9]+)")
_FIGURES = (
    "weights", "activation", "non_torch", "graphs", "kv_bytes", "kv_tokens", "blocks", "consumed",
    "requested",
)  # fmt: skip


@dataclass(frozen=True)
class StartupLog:
    """One start as its log tells it. Bytes per card, the fullest rank; None: the log does not say."""

    backend: str
    version: str | None = None
    model: str | None = None
    device: str | None = None
    """The card's name, where a tuning file's name gives it away."""
    tensor: int | None = None
    pipeline: int | None = None
    context: int | None = None
    utilization: float | None = None
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    total: int | None = None
    free_at_start: int | None = None
    requested: int | None = None
    weights: int | None = None
    activation: int | None = None
    non_torch: int | None = None
    graphs: int | None = None
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    max_concurrency: float | None = None


def read(path: str | Path) -> StartupLog:
    """The log at the beginning of a file."""
    file = Path(path)
    try:
        if not file.is_file() and file.stat():
            raise InvalidInput(f"cannot read the log {str(file)!r}: not a file")
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES)
    except OSError as error:
        raise InvalidInput(f"cannot read the log {str(file)!r}: {error.strerror}") from None
    return parse(content.decode("utf-8", errors="replace"), name=file.name)


def parse(text: str, *, name: str = "the log") -> StartupLog:
    """The figures of one start; `InvalidInput` where there are none."""
    clean = _COLOUR.sub("", text).splitlines()
    logs = installed.logs()
    found = {backend: _gather(clean, log) for backend, log in logs.items() if _may_be(text, log)}
    likely = [backend for backend, figures in found.items() if set(_FIGURES) & set(figures)]
    if not likely:
        raise _unread(name, list(logs.values()))
    backend = max(likely, key=lambda one: (logs[one]["recognised_by"] is not None, len(found[one])))
    return _log(backend, found[backend], logs[backend]["block_size"])


def _unread(name: str, logs: list[LogFormat]) -> InvalidInput:
    ranked = sorted(logs, key=lambda log: (-len(log["lines"]), log["engine"].lower()))
    engines = " or ".join(", ".join(log["engine"] for log in ranked).rsplit(", ", 1))
    lines = " or ".join(list(dict.fromkeys(f"{log['example']!r}" for log in ranked))[:2])
    return InvalidInput(f"{name} has no memory figures of {engines}", hint=f"it should say {lines}")


def _may_be(text: str, log: LogFormat) -> bool:
    return log["recognised_by"] is None or re.search(log["recognised_by"], text) is not None


def _gather(lines: list[str], log: LogFormat) -> dict[str, Any]:
    """Field -> figure, from every row of the table that matches some line. Rows go before later ones."""
    found: dict[str, Any] = {}
    for row in log["lines"]:
        if row["field"] in found:
            continue
        hits = [
            (_rank(line), match[1]) for line in lines for match in _pattern(row["pattern"]).finditer(line)
        ]
        values = [(rank, value) for rank, word in hits if (value := _value(word, row["unit"])) is not None]
        if values:
            found[row["field"]] = _picked(values, row["pick"])
    return found


_pattern = cache(re.compile)


def _rank(line: str) -> str:
    match = _RANK.search(line)
    return match[0] if match else ""


def _value(word: str, unit: str) -> Any:
    if unit == "text":
        return word
    try:
        number = float(word.replace(",", "").rstrip("."))
    except ValueError:
        return None
    if unit == "gib":
        return round(number * GIB)
    if unit == "count":
        return int(number) if number >= 0 else None
    return number


def _picked(values: list[tuple[str, Any]], pick: str) -> Any:
    plain = [value for _, value in values]
    if pick == "sum_of_rank":
        sums: dict[str, int] = {}
        for rank, value in values:
            sums[rank] = sums.get(rank, 0) + value
        return min(sums.values())
    if pick in ("min", "max"):
        return min(plain) if pick == "min" else max(plain)
    return plain[0] if pick == "first" else plain[-1]


def _log(backend: str, figures: dict[str, Any], block_size: int) -> StartupLog:
    _derive(figures, block_size)
    fields = {field: figures.get(field) for field in StartupLog.__dataclass_fields__ if field != "backend"}
    return StartupLog(backend, **fields)


def _derive(figures: dict[str, Any], block_size: int) -> None:
    """What some logs say only as a sum or a difference."""
    weights, peak = figures.get("weights"), figures.get("peak_torch")
    if weights is None and "initial" in figures:
        weights = figures["weights"] = figures["initial"] - figures.get("non_torch", 0)
    if "consumed" in figures and weights is not None:
        figures.setdefault("non_torch", max(0, figures["consumed"] - weights))
    if peak is not None and weights is not None:
        figures.setdefault("activation", max(0, peak - weights))
    if "kv_k" in figures:
        figures.setdefault("kv_bytes", figures["kv_k"] + figures.get("kv_v", 0))
    figures.setdefault("kv_tokens", figures.get("pool_tokens"))
    if figures["kv_tokens"] is None and "blocks" in figures:
        figures["kv_tokens"] = figures["blocks"] * figures.get("block_size", block_size)
