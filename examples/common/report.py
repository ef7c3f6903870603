"""What a benchmark's run found, as one page: each measure with its interval, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

import memserve
from memserve.plan import compare

RESAMPLED = 1000
RUNS = {"a single study": 1.0, "weekly evaluation": 52 / 12}
HOURS = 730.0
"""Of a month."""
ALL = "all the time"
STYLE = (
    "body{font:16px/1.5 system-ui;max-width:60rem;margin:1rem auto}td,th{padding:.1rem .8rem;text-align:left}"
)


@dataclass(frozen=True)
class Measure:
    """One number of the table: the mean over questions, and where it lies in 95 of 100 resamplings."""

    name: str
    values: Sequence[float]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values) if self.values else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Bootstrap over the questions, the same each time."""
        if not self.values:
            return 0.0, 0.0
        found = np.asarray(self.values, float)
        drawn = np.random.default_rng(0).integers(0, len(found), (RESAMPLED, len(found)))
        low, high = np.percentile(found[drawn].mean(axis=1), (2.5, 97.5))
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "interval": self.interval, "questions": len(self.values)}


@dataclass
class Report:
    """Collected while a benchmark runs."""

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    """How it was run: what a paper must say."""
    tables: dict[str, list[Measure]] = field(default_factory=dict)
    """By configuration."""
    spent: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Tokens and dollars, by stage."""
    sheet: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """report.html for people, report.json for programs."""
        tables = {name: {one.name: one.to_dict() for one in rows} for name, rows in self.tables.items()}
        whole = {"title": self.title, "facts": self.facts, "measures": tables, "spent": self.spent,
                 "costs": self.sheet}  # fmt: skip
        (folder / "report.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1), encoding="utf-8")
        (folder / "report.html").write_text(self._html(), encoding="utf-8")

    def print(self) -> None:
        for name, rows in self.tables.items():
            for one in rows:
                low, high = one.interval
                print(f"{name:12} {one.name:32} {one.mean:.3f}  [{low:.3f}, {high:.3f}]  {len(one.values)}")

    def _html(self) -> str:
        parts = [f"<h1>{escape(self.title)}</h1>", _table(("how", ""), self.facts.items())]
        for name, rows in self.tables.items():
            cells = [(one.name, f"{one.mean:.4f}", "{:.4f} to {:.4f}".format(*one.interval),
                      str(len(one.values))) for one in rows]  # fmt: skip
            parts.append(f"<h2>{escape(name)}</h2>" + _table(("", "mean", "95 %", "questions"), cells))
        spent = [(name, *map(_said, row.values())) for name, row in self.spent.items()]
        head = ("stage", "requests", "prompt tokens", "answer tokens", "$")
        parts += ["<h2>What this run took</h2>", _table(head, spent)]
        if self.sheet:
            rows = [tuple(map(_said, row.values())) for row in self.sheet]
            parts += ["<h2>What it costs</h2>", _table(tuple(self.sheet[0]), rows)]
        return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>" + "\n".join(parts)


def _said(value: object) -> str:
    if not isinstance(value, float):
        return "-" if value is None else f"{value}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _table(head: Sequence[str], rows: Any) -> str:
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><tr>{top}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def costs(
    model: str | None, specs: Sequence[str], tokens: tuple[int, int, int], cny_per_usd: float
) -> list[dict[str, Any]]:
    """Three sizes on each machine or provider, by the planner's own prices: dollars and yuan.

    `tokens`: prompt and answer of one question, and how many questions. A machine is rented for the hours
    of a run; all the time means that one begins when the last has ended.
    """
    prompt, answer, count = (max(1, number) for number in tokens)
    found = compare(model, specs, workload=f"{prompt}:{answer}:{count}").to_dict()
    return [row for one in found["compare"] for row in _sizes(one, found["model"], cny_per_usd)]


def _sizes(one: Mapping[str, Any], model: str, rate: float) -> list[dict[str, Any]]:
    """A row of each size; or one that says why there is none."""
    job, rented = one["workload"], (one["cost"] or {}).get("usd_per_hour")
    priced = bool(job and job["usd"])
    each, hours = (job["usd"]["likely"], max(job["hours"]["likely"], 1e-9)) if priced else (None, None)
    sizes: dict[str, float | None] = {**RUNS, ALL: HOURS / hours} if hours else {"-": None}
    what = f"{model}: {one['what']}" if rented else one["what"]
    return [
        {"size": size, "where": one["name"], "what": what if priced else one["reason"] or "no price is known",
         "runs a month": runs, "hours a run": hours, "$ a run": each, "CNY a run": _times(each, rate),
         "$ a month": _times(each, runs), "CNY a month": _times(each, runs, rate)}
        for size, runs in sizes.items()
    ]  # fmt: skip


def _times(*numbers: float | None) -> float | None:
    known = [one for one in numbers if one is not None]
    return prod(known) if len(known) == len(numbers) else None


def version() -> str:
    return f"memserve {memserve.__version__}"
