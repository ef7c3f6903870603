"""An engine's last words in plain ones, with what would help: its backend's rows, then `diagnoses.json`."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_KILLED = 9
_NOISE = re.compile(r"^\s*(File \"|Traceback|\^+|During handling|The above exception|warnings?\.warn)|^\s*$")
_PREFIX = re.compile(r"^\([^)]*pid=\d+\)\s*|^(INFO|WARNING|ERROR)\s+[\d\-: ]+(\[[^\]]*\]\s*)?")


@dataclass(frozen=True)
class Diagnosis:
    """What went wrong, what to do, and the engine's own line."""

    problem: str
    remedy: str
    line: str
    memory: str = ""
    """What ran out: "card" (the engine asked for more than there was), "pool" (its KV cache), or nothing."""


@dataclass(frozen=True)
class _Row:
    pattern: re.Pattern[str]
    problem: str
    remedy: str
    memory: str = ""


@cache
def _rows() -> tuple[_Row, ...]:
    rows = json.loads(Path(__file__).with_name("diagnoses.json").read_text(encoding="utf-8"))["rows"]
    return tuple(map(_row, rows))


def _row(row: Mapping[str, str]) -> _Row:
    pattern = re.compile(row["pattern"], re.IGNORECASE)
    return _Row(pattern, row["problem"], row["remedy"], row.get("memory", ""))


def diagnose(log: str, code: int | None = None, failures: Iterable[Mapping[str, str]] = ()) -> Diagnosis:
    """The first row that matches any line, read from the end; else the last line that says something."""
    lines = [_PREFIX.sub("", line).strip() for line in log.splitlines() if not _NOISE.search(line)]
    for row in (*map(_row, failures), *_rows()):
        for line in reversed(lines):
            if row.pattern.search(line):
                return Diagnosis(row.problem, row.remedy, line[:300], row.memory)
    errors = [line for line in lines if re.search(r"\b\w*(Error|Exception)\b", line)]
    last = (errors or lines or ["it said nothing"])[-1][:300]
    if code == -_KILLED:
        return Diagnosis("the system killed it, most often because main memory ran out",
                         "free memory, or plan with a smaller quantization", last)  # fmt: skip
    return Diagnosis("the engine stopped", "its log has the rest", last)
