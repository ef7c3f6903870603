"""What a measurement answers: rows of figures beside their prediction, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from memserve.plan.page.section import Section
from memserve.plan.page.shown import Shown

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
        head = ("load", "failed", *(f"{name} (predicted)" for name in FIGURES.values()))
        asked = "{input_tokens:g} tokens in, {output_tokens:g} out, {requests} requests".format(
            **self.workload
        )
        yield Section(f"{self.target['model']}: {asked}", head, tuple(map(_row, self.results)))
        lines = [f"{name}: {value}" for name, value in _memory(self.memory)]
        errors = {reason: count for row in self.results for reason, count in row["errors"].items()}
        lines += [f"{count} failed: {reason}" for reason, count in errors.items()]
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


def _memory(memory: dict[str, Any]) -> Iterable[tuple[str, str]]:
    if memory.get("process_gib") is not None:
        yield "memory of the process", f"{memory['process_gib']:g} GiB at most"
    for index, card in enumerate(memory.get("cards", ())):
        yield f"card {index}", f"{card['used_gib']:g} GiB taken"
    if memory.get("energy_joules") is not None:
        yield "energy of the cards", f"{memory['energy_joules']:.0f} J"
