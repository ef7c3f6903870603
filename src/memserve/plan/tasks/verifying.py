"""`--verify [FILE]`: plan for this machine, start, measure; what was predicted beside what was measured.

The row of truth that comes out is what an issue ("A plan, measured") asks for: it holds no path, name or key.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve.errors import DoesNotFit, InvalidInput
from memserve.hardware.machine import GIB, Machine
from memserve.plan.page import Section, Shown, show

if TYPE_CHECKING:
    from argparse import Namespace

    from memserve.plan.plan import Plan

WORKLOAD = "256:64:16"
AT_ONCE = 4
FIGURES = {"ttft_ms": "TTFT, ms", "tpot_ms": "time a token, ms", "output_tokens_per_s": "tokens/s"}
MEMORY = {"weights": "weights", "activation": "activation", "kv_cache": "kv_bytes"}
"""What a plan calls it, and what a start-up log does; GiB a card."""
SAID = ("backend", "engine_version", "quantization", "dtype", "tensor_parallel", "pipeline_parallel",
        "data_parallel", "kv_dtype", "context", "concurrency", "command")  # fmt: skip
HEAD = ("", "predicted", "measured", "off", "in the range")


@dataclass(frozen=True, repr=False)
class Verified(Shown):
    """One plan that ran here: each figure with its prediction."""

    plan: Plan
    report: Mapping[str, Any]

    @property
    def fits(self) -> bool:
        """Something was answered."""
        return any(row["failed"] < row["requests"] for row in self.report["results"])

    def rows(self) -> Iterator[dict[str, Any]]:
        """name, predicted (low, likely, high), measured, off (share), inside."""
        for level in self.report["results"]:
            for name, shown in FIGURES.items():
                value, told = level[name], (level["predicted"] or {}).get(name)
                measured = value["mean"] if isinstance(value, dict) else value
                yield _row(f"{shown} at {level['concurrency']} at once", told, measured)
        log, bars = self.report["memory"].get("startup_log") or {}, self.plan.error_bars or {}
        held = self.plan.memory_gib_per_card or {}
        for name, logged in MEMORY.items():
            if log.get(logged):
                yield _row(f"{name}, GiB a card", _bar(held.get(name), bars.get(name)), log[logged] / GIB)
        if log.get("kv_tokens"):
            told = _bar(self.plan.kv_cache_tokens, bars.get("kv_cache_tokens"))
            yield _row("KV cache, tokens", told, log["kv_tokens"])

    def to_dict(self) -> dict[str, Any]:
        """The row of truth."""
        whole = self.plan.to_dict()
        named = {name: whole[name] for name in SAID}
        path = Path(str(whole["checkpoint"]))
        public = path.name if path.exists() else str(path)
        named["command"] = [word.replace(str(path), public) for word in whole["command"]]
        model = {name: whole["model"][name] for name in ("architecture", "parameters", "active_parameters")}
        machine = {name: whole["machine"][name] for name in (
            "nodes", "cards_per_node", "card", "memory_gib_per_card")}  # fmt: skip
        return {
            "schema": 1, "date": date.today().isoformat(), "memserve": version("memserve"),
            "model": {"id": public, **model}, "machine": machine, "plan": named,
            "workload": self.report["workload"], "rows": list(self.rows()),
            "memory": {"predicted_gib_per_card": whole["memory_gib_per_card"],
                       "process_gib": self.report["memory"].get("process_gib")},
        }  # fmt: skip

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterator[Section]:
        """The table, and where its row goes."""
        plan, rows = self.plan, tuple(map(_cells, self.rows()))
        head = f"{plan.model.id} on {plan.backend} {plan.engine_version}: predicted and measured"
        yield Section(head, HEAD, rows, style="good" if self.fits else "bad")
        send = "--json prints it, --verify FILE writes it; an issue of the kind 'A plan, measured' takes it"
        yield Section("a row of truth", lines=(send,))


def run(options: Namespace) -> int:
    """Plan, start, measure; 0 where it was answered, 1 where nothing fits or starts."""
    from memserve.plan.tasks.options import plan

    found = plan(options)
    if found.plan is None:
        return show(found, options)
    check(found.plan)
    if options.verify and not Path(options.verify).parent.is_dir():
        raise InvalidInput(f"{options.verify} cannot be written: its folder is not there")
    with tempfile.TemporaryDirectory() as place:
        file, report = Path(place, "plan.json"), Path(place, "bench.json")
        file.write_text(json.dumps(found.to_dict()), encoding="utf-8")
        _bench(options, file, report)
        verified = Verified(found.plan, json.loads(report.read_text(encoding="utf-8")))
    if options.verify:
        Path(options.verify).write_text(json.dumps(verified.to_dict(), indent=1) + "\n", encoding="utf-8")
    return show(verified, options)


def check(plan: Plan) -> None:
    """Only what this machine can start is measured."""
    from memserve import hardware

    if not plan.command:
        raise InvalidInput(f"{plan.backend} is a provider's service: memserve bench measures it")
    here = hardware.detect()
    if plan.machine.nodes > 1 or not _holds(here, plan.machine):
        nodes = f"{plan.machine.nodes}x" if plan.machine.nodes > 1 else ""
        asked = f"{nodes}{plan.machine.cards_per_node}x{plan.machine.card.name}"
        raise DoesNotFit(f"this machine is {here.cards_per_node}x{here.card.name}, the plan is for {asked}: "
                         "run it where those cards are")  # fmt: skip
    made = plan.checkpoint
    if made.make and not Path(made.id).exists():
        raise DoesNotFit(f"{made.id} is not made yet", hint=f"run: {made.make}")


def _holds(here: Machine, asked: Machine) -> bool:
    return here.card.name == asked.card.name and here.cards_per_node >= asked.cards_per_node


def _bench(options: Namespace, plan: Path, report: Path) -> None:
    """`memserve bench` in a process of its own: it starts the engine, and takes it with it when it ends."""
    most = min(AT_ONCE, max(options.concurrency or AT_ONCE, 1))
    load = ["--workload", options.workload or WORKLOAD, "--concurrency", ",".join(sorted({"1", str(most)}))]
    more = ["--python", options.python] if options.python else []
    words = [sys.executable, "-m", "memserve.bench", str(plan), "-o", str(report), *load, *more]
    done = subprocess.run(words, check=False, stdout=subprocess.DEVNULL)
    if done.returncode or not report.exists():
        raise DoesNotFit(f"the plan was not measured: memserve bench ended with {done.returncode}; "
                         "what it said stands above")  # fmt: skip


def _row(name: str, told: Mapping[str, float] | None, measured: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "predicted": told and dict(told),
        "measured": None,
        "off": None,
        "inside": None,
    }
    if measured is not None:
        found["measured"] = float(f"{measured:.5g}")
    if told and measured is not None:
        found["off"] = round(measured / told["likely"] - 1, 4)
        found["inside"] = told["low"] <= measured <= told["high"]
    return found


def _bar(likely: float | None, bounds: Mapping[str, float] | None) -> dict[str, float] | None:
    if not likely:
        return None
    return {"low": likely, "high": likely, **(bounds or {}), "likely": likely}


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    told, measured = row["predicted"], row["measured"]
    return (
        row["name"],
        "-" if not told else f"{told['likely']:.4g} ({told['low']:.4g} to {told['high']:.4g})",
        "-" if measured is None else f"{measured:.4g}",
        "-" if row["off"] is None else f"{row['off']:+.0%}",
        {True: "yes", False: "no", None: "-"}[row["inside"]],
    )
