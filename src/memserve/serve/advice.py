"""An engine's last words in plain ones, by its backend's rows and ours; what the planner would change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from memserve.engines import installed
from memserve.engines.command import masked
from memserve.errors import DoesNotFit, MemserveError
from memserve.hardware.machine import Machine

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


_SHARES = (0.95, 0.9, 0.85, 0.8, 0.7)
_PARTS = (1, 2, 4)
"""Of the context, where taking less of the card does not help."""


def instead(answer: Mapping[str, Any], short: str) -> str | None:
    """The changes and the whole command of a smaller start; None where nobody can tell.

    `short` is what ran out: "card" (the engine asked for more than there was: it must claim less) or "pool"
    (its KV cache came out smaller than planned: less must go into it, or more be claimed).
    """
    if not short:
        return None
    try:
        old = list(masked(answer["plan"]["command"], {})[0])
        new = _claiming_less(answer, old) if short == "card" else _planned_smaller(answer, old)
    except (MemserveError, KeyError, TypeError, ValueError, OverflowError):
        return None
    if new is None:
        return "no smaller start fits this machine: take more cards, or a smaller model"
    said = "; ".join(changes(old, new)) or "the engine"
    return f"the planner would change {said}, so: {' '.join(new)}"


def changes(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Option by option, as a person would say it."""
    before, after = _options(old), _options(new)
    said = []
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        if was != now:
            value = "(left out)" if now is None else now if was is None else f"from {was} to {now}"
            said.append(f"{name} {value}".strip())
    return said


def _options(command: Sequence[str]) -> dict[str, str]:
    """Values by option; the last word before the first option is the model."""
    name = "the model"
    found = {name: ""}
    for word in command:
        if word.startswith("--"):
            name = word
            found[name] = ""
        elif name == "the model":
            found[name] = word
        else:
            found[name] = f"{found[name]} {word}".strip()
    return found


def _claiming_less(answer: Mapping[str, Any], old: list[str]) -> list[str] | None:
    """The same start with a smaller share of each card, judged to fit; with less context if need be."""
    from memserve.plan import check

    plan, machine = answer["plan"], machine_of(answer)
    how = {"engine_version": plan["engine_version"], "concurrency": plan["concurrency"]}
    began = check(old, machine, context=plan["context"], **how)
    held, launch = began.footprint, installed.named(plan["backend"]).launch
    if held is None or held.usable == held.total:
        return _planned_smaller(answer, old)
    for part, share in product(_PARTS, _SHARES):
        less = replace(
            began.deployment, utilization=round(held.usable / held.total * share, 2),
            context=plan["context"] // part,
        )  # fmt: skip
        words = list(launch.launch(began.model, began.checkpoint.id, machine, less).command)
        if str(less.utilization) not in words:  # the engine is not told its share
            return _planned_smaller(answer, old)
        if check(words, machine, **how).fits:
            return words
    return None


def _planned_smaller(answer: Mapping[str, Any], old: list[str]) -> list[str] | None:
    """The first other plan for cards that are smaller than they are."""
    from memserve.plan import best

    plan = answer["plan"]
    options = {"concurrency": plan["concurrency"], "backend": plan["backend"]}
    for machine, context in _attempts(answer):
        try:
            found = best(answer["model"]["id"], machine, context=context, **options)
        except DoesNotFit:
            continue
        if found.command != old:
            return list(found.command)
    return None


def _attempts(answer: Mapping[str, Any]) -> Iterator[tuple[Machine, int]]:
    from memserve.hardware.catalogue import with_memory

    machine, memory = machine_of(answer), float(answer["machine"]["memory_gib_per_card"])
    for part in _PARTS:
        for share in _SHARES:
            yield with_memory(machine, memory * share), int(answer["plan"]["context"]) // part


def machine_of(answer: Mapping[str, Any]) -> Machine:
    """The machine that it was planned for."""
    from memserve.hardware import parse

    told = answer["machine"]
    card = str(told["card"])
    return parse("cpu" if card == "CPU" else f"{told['nodes']}x{told['cards_per_node']}x{card}")
