"""An engine's last words in plain ones, with what would help: rows of `diagnoses.json`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_NOISE = re.compile(r"^\s*(File \"|Traceback|\^+|During handling|The above exception|warnings?\.warn)|^\s*$")
_PREFIX = re.compile(r"^\([^)]*pid=\d+\)\s*|^(INFO|WARNING|ERROR)\s+[\d\-: ]+(\[[^\]]*\]\s*)?")


@dataclass(frozen=True)
class Diagnosis:
    """What went wrong, what to do, and the engine's own line."""

    problem: str
    remedy: str
    line: str


@cache
def _rows() -> tuple[tuple[re.Pattern[str], str, str], ...]:
    rows = json.loads(Path(__file__).with_name("diagnoses.json").read_text(encoding="utf-8"))
    return tuple((re.compile(row["pattern"], re.IGNORECASE), row["problem"], row["remedy"]) for row in rows)


def diagnose(log: str) -> Diagnosis:
    """The first row that matches any line, read from the end; else the last line that says something."""
    lines = [_PREFIX.sub("", line).strip() for line in log.splitlines() if not _NOISE.search(line)]
    for pattern, problem, remedy in _rows():
        for line in reversed(lines):
            if pattern.search(line):
                return Diagnosis(problem, remedy, line[:300])
    errors = [line for line in lines if re.search(r"\b\w*(Error|Exception)\b", line)]
    last = (errors or lines or ["it said nothing"])[-1][:300]
    return Diagnosis("the engine stopped", "its log has the rest", last)
